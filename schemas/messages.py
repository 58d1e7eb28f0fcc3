"""What travels: pydantic models over msgpack bodies (`schemas.wire`). Every id is derived, never random.

`decode` takes any bytes: it returns a message whose numbers, ids and arrays are checked, or raises MessageError.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import prod
from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, TypeAdapter, ValidationError

from schemas.errors import MessageError, format_field_error
from schemas.fields import (
    Count,
    GivenName,
    Label,
    Moment,
    Number,
    PositiveTerm,
    Ratio,
    Seconds,
    Size,
    Ticks,
    clean_name,
)
from schemas.grid import Clock
from schemas.pipeline import Name
from schemas.wire import Buffer, pack, unpack

VERSION = 1
ENTIRE_JOB = -1  # the `segment` of a failure that stands for all of its job
DType: TypeAlias = Literal[
    "|b1", "|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"
]  # numpy's names; the digit is the bytes of an element
_ITEM_BYTES = {dtype: int(dtype[2]) for dtype in get_args(DType)}
_PART_HEADER = re.compile(r"\d{1,10} \d{1,10} \d{1,10} [01] [01] \d{1,16} \d{1,16}", re.ASCII)


class Priority(StrEnum):
    """Priority of a job: a person waits for it (`interactive`), or it runs when there is room (`bulk`)."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Message(BaseModel):
    """Base of all that travels: immutable meta; `encode` and `decode` add and take the buffers."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = VERSION

    def encode(self, buffers: Sequence[Buffer] = ()) -> bytes:
        """The body that carries this meta and `buffers`."""
        return pack(self.model_dump(mode="json"), buffers)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that this meta fits `buffers`, and that its fields fit each other. Raises MessageError."""
        if buffers:
            raise MessageError(f"it has {len(buffers)} buffers, and needs none")


class JobRef(BaseModel):
    """Which job a message belongs to, and what the job is pinned to.

    `generation` counts how often the job was begun anew under its id: messages of an earlier generation are ignored.
    """

    model_config = ConfigDict(frozen=True)
    id: Name
    tenant: Name = "main"
    pipeline: Name
    revision: Name
    priority: Priority = Priority.BULK
    generation: Number = 0

    @property
    def id_prefix(self) -> str:
        """Prefix of the ids of the job's messages, in any generation.

        It has the tenant, because all tenants share a stream's window of duplicates.
        """
        return f"{self.tenant}/{self.id}/"

    @property
    def identity(self) -> str:
        """Prefix of the ids of the messages of this generation."""
        return f"{self.id_prefix}{self.revision}" + (f".{self.generation}" if self.generation else "")


Color: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class MediaInfo(BaseModel):
    """A media's picture: in a segment as it is stored, in a part as decode and preprocess make it (upright, scaled).

    `orientation` is EXIF's number of how stored pictures are turned and mirrored (1: as they are), `origin` the pts of
    the first presented frame in units of `time_base`, `last` that of the last one where pts can
    be trusted; colour fields are FFmpeg's numbers (AVColorSpace and friends, 2 is unspecified). `duration_s` is an
    estimate for progress bars only. `window_rate` is how many windows a second the pipeline looks at; 0: each frame.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["video", "image"]
    name: GivenName = ""
    codec: Label = ""
    width: Size = 0
    height: Size = 0
    orientation: Annotated[int, Field(ge=1, le=8)] = 1
    time_base: tuple[PositiveTerm, PositiveTerm] = (1, 1)
    origin: Ticks = 0
    last: Ticks | None = None
    pixel_format: Label = ""
    frame_rate: Ratio = (0, 1)
    sample_aspect: Ratio = (1, 1)
    color_range: Color = 0
    color_space: Color = 2
    color_primaries: Color = 2
    color_transfer: Color = 2
    duration_s: Seconds = 0.0
    window_rate: Ratio = (0, 1)

    @property
    def clock(self) -> Clock:
        """The media's own clock."""
        return Clock(Fraction(*self.time_base), self.origin)


class CodecParameters(BaseModel):
    """What a decoder must know of a video stream beside its packets and extradata, as FFmpeg's AVCodecParameters.

    `tag` is the FOURCC, `bits` are those of a coded sample, `reorder` is how many frames at most a decoder holds back;
    `level` and `field_order` are FFmpeg's numbers. The colours are those of the header.
    """

    model_config = ConfigDict(frozen=True)
    decoder: Label
    tag: Annotated[str, Field(max_length=4)] = ""
    pixel_format: Label = ""
    width: Size = 0
    height: Size = 0
    profile: Label = ""
    level: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = -99
    bits: Color = 0
    field_order: Color = 0
    reorder: Color = 0
    sample_aspect: Ratio = (0, 1)
    color_range: Color = 0
    color_space: Color = 2
    color_primaries: Color = 2
    color_transfer: Color = 2


class Item(BaseModel):
    """One image of a segment of images: its name, and its own outcome once it has failed.

    `path` names a file that publisher and workers share; the segment then has no buffers.
    """

    model_config = ConfigDict(frozen=True)
    name: GivenName
    path: str = ""
    error: str = ""


Items: TypeAlias = Annotated[tuple[Item, ...], FailFast()]  # errors of all would fill the memory


class Key(BaseModel):
    """Where in its job a piece belongs: `last` marks the last part of a segment, `final` the job's last segment."""

    model_config = ConfigDict(frozen=True)
    job: JobRef
    segment: Annotated[int, Field(ge=ENTIRE_JOB, lt=1 << 31)]
    final: bool = False
    part: Number = 0
    last: bool = True

    def message_id(self, stage: str) -> str:
        """The `Nats-Msg-Id` of a message for `stage`: `tenant/job/revision[.generation]/segment/part/stage`."""
        return f"{self.job.identity}/{self.segment}/{self.part}/{stage}"

    def check(self) -> None:
        """Check that it is the place of a piece, not of a whole job. Raises MessageError."""
        if self.segment < 0:
            raise MessageError(f"key.segment is {self.segment}, and segments count from 0")


class Segment(Message):
    """A piece of compressed media, in front of `decode`. Two buffers for video, one for each item of images.

    Video: the packets from a keyframe on, without a container. The first buffer is a table of them (its columns are in
    engines.media.packets), the second holds their bytes; `codec` is what their decoder must know. The segment owns the
    frames (and the windows that start) in `[start, end)`, in pts of the media's clock; `end` None: to the end of the
    media. `by_rank`: frames take the packets' times in rising order, because the media does not say in which order they
    are shown. `notes`: what is out of the ordinary in the media, on its first segment.
    """

    type: Literal["segment"] = "segment"
    key: Key
    media: MediaInfo
    codec: CodecParameters | None = None
    start: Ticks = 0
    end: Ticks | None = None
    by_rank: bool = False
    notes: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64)] = ()
    items: Items = ()

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that the buffers are those of this kind of media. Raises MessageError."""
        self.key.check()
        if self.media.kind == "image":
            if not self.items:
                raise MessageError("a segment of images has no items")
            if len(buffers) != len(self.items) and (buffers or not all(item.path or item.error for item in self.items)):
                raise MessageError(f"a segment of {len(self.items)} images has {len(buffers)} buffers")
            return
        if len(buffers) != 2 or self.codec is None:
            codec = "no codec" if self.codec is None else "a codec"
            raise MessageError(f"a segment of video has {len(buffers)} buffers and {codec}")
        if not (self.media.width and self.media.height):
            raise MessageError("a segment of video has a picture without size")
        if self.end is not None and self.end < self.start:
            raise MessageError(f"a segment of video ends at {self.end}, before its start at {self.start}")

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it answers for; (0, 0) for images."""
        if self.media.kind == "image":
            return 0.0, 0.0
        clock = self.media.clock
        end_s = self.media.duration_s if self.end is None else clock.seconds(self.end)
        return clock.seconds(self.start), max(end_s, clock.seconds(self.start))


class ArraySpec(BaseModel):
    """An array on the wire: numpy dtype string, shape, and which buffer holds its bytes in C order.

    `offsets`, for rows of different lengths: the buffer of the int64 offsets where each row begins, and the last ends.
    """

    model_config = ConfigDict(frozen=True)
    dtype: DType
    shape: Annotated[tuple[Number, ...], Field(max_length=32)]
    buffer: Number
    offsets: Number | None = None


Arrays: TypeAlias = Annotated[dict[Label, ArraySpec], Field(max_length=1024)]


def _check_arrays(arrays: Mapping[str, ArraySpec], buffers: Sequence[Buffer]) -> None:
    """Check that each array's buffer exists and holds exactly its elements. Raises MessageError."""
    lengths = [len(buffer) for buffer in buffers]
    for name, spec in arrays.items():
        shape, number = spec.shape, spec.buffer
        if number >= len(lengths):
            raise MessageError(f"array {clean_name(name)} is in buffer {number}, and there are {len(lengths)}")
        nbytes = prod(shape) * _ITEM_BYTES[spec.dtype]
        if nbytes != lengths[number]:
            held = f"{spec.dtype}, shape {list(shape)}, is in a buffer of {lengths[number]} bytes"
            raise MessageError(f"array {clean_name(name)}, {held}")
        if spec.offsets is not None and not _holds_offsets(spec, lengths):
            raise MessageError(f"array {clean_name(name)} has no offsets in buffer {spec.offsets}")
        if not nbytes and prod(max(1, size) for size in shape) >= 1 << 59:  # numpy counts these bytes, too
            raise MessageError(f"array {clean_name(name)} has the shape {list(shape)}")


def _holds_offsets(spec: ArraySpec, lengths: Sequence[int]) -> bool:
    number = spec.offsets
    return (
        number is not None
        and number < len(lengths)
        and lengths[number] % 8 == 0 < lengths[number]
        and len(spec.shape) > 0
    )


class PartMeta(BaseModel):
    """What a part carries beside its arrays, from decode to result.

    `pts` has one entry a window (its first tick, in the media's clock) for video and one an item for images. `frames`
    and `lost` count the frames this part owns and those that damage took; `unseen` are those of `frames` that no window
    looks at, which count as whole undecoded; `notes` says in words what was out of the
    ordinary; `not_finite` counts, for each output, the windows with values that are NaN or infinite.
    """

    model_config = ConfigDict(frozen=True)
    key: Key
    media: MediaInfo
    pts: Annotated[tuple[Ticks, ...], FailFast()] = ()
    items: Items = ()
    frames: Count = 0
    lost: Count = 0
    unseen: Count = 0
    notes: Annotated[tuple[str, ...], FailFast()] = ()
    not_finite: Annotated[dict[Label, Count], Field(max_length=1024)] = {}

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds from its first window to where the window after its last would begin; (0, 0) for images."""
        if self.media.kind == "image" or not self.pts:
            return 0.0, 0.0
        clock, steps = self.media.clock, len(self.pts) - 1
        start_s, last_s = clock.seconds(self.pts[0]), clock.seconds(self.pts[-1])
        frames, over_s = self.media.frame_rate[0], float(self.media.frame_rate[1])
        step_s = (last_s - start_s) / steps if steps else (over_s / frames if frames else 0.0)
        return start_s, last_s + step_s


class PartMessage(Message):
    """A part between two stages in different processes: named arrays."""

    type: Literal["part"] = "part"
    meta: PartMeta
    arrays: Arrays

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Whether each array fits its buffer. Raises MessageError."""
        self.meta.key.check()
        _check_arrays(self.arrays, buffers)

    @property
    def key(self) -> Key:
        """Where in its job it belongs."""
        return self.meta.key

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it answers for; (0, 0) for images."""
        return self.meta.span_s


@dataclass(frozen=True, slots=True)
class PartHeader:
    """The header of a part's result: progress is counted from it, without reading bodies."""

    generation: int
    segment: int
    part: int
    last: bool
    final: bool
    frames: int
    lost: int

    @classmethod
    def of(cls, meta: PartMeta) -> Self:
        """The mark of a part."""
        key = meta.key
        return cls(key.job.generation, key.segment, key.part, key.last, key.final, meta.frames, meta.lost)

    def header(self) -> str:
        """Seven numbers in the order of the fields."""
        place = f"{self.generation} {self.segment} {self.part} {self.last:d} {self.final:d}"
        return f"{place} {self.frames} {self.lost}"

    @classmethod
    def parse(cls, header: str) -> Self:
        """The mark in a header. Raises MessageError."""
        if not _PART_HEADER.fullmatch(header):
            raise MessageError(f"the header of a part is not seven numbers: {clean_name(header)}")
        number, segment, part, last, final, frames, lost = map(int, header.split())
        if max(number, segment, part) >= 1 << 31 or max(frames, lost) >= 1 << 53:
            raise MessageError(f"the header of a part has a number that is too large: {header}")
        return cls(number, segment, part, bool(last), bool(final), frames, lost)


class Result(Message):
    """What `encode` made of one part; `meta.key` says where it belongs, the format's own facts are in `facts`."""

    type: Literal["result"] = "result"
    meta: PartMeta
    format: Name
    arrays: Arrays = {}
    facts: dict[str, JsonValue] = {}

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Whether each array fits its buffer. Raises MessageError."""
        self.meta.key.check()
        _check_arrays(self.arrays, buffers)


class TrackInfo(BaseModel):
    """A track beside the picture: the unit of its times in seconds, and the samples of a packet (0: they differ)."""

    model_config = ConfigDict(frozen=True)
    time_base: tuple[PositiveTerm, PositiveTerm]
    frame: Number = 0


class Fragment(Message):
    """What no stage touches (sound, subtitles), stream-copied by `split`: packets of one segment, for `collect` to mux.

    Track N has the arrays `tableN` and `dataN`, see `engines.media.packets`. The fragment of the first segment
    also tells of all `tracks`: its array `head` is a small file of format `container` that has them in that order, with
    the media's chapters and tags; the finished file is of that format. `notes` say what is left out.
    """

    type: Literal["fragment"] = "fragment"
    key: Key
    media: MediaInfo
    container: Label = ""
    tracks: Annotated[tuple[TrackInfo, ...], Field(max_length=4096)] = ()
    notes: Annotated[tuple[str, ...], Field(max_length=4096)] = ()
    arrays: Arrays = {}

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Whether each array fits its buffer. Raises MessageError."""
        self.key.check()
        _check_arrays(self.arrays, buffers)


class Attempt(BaseModel):
    """A worker began with a message and did not finish it: which worker, where, and since when.

    `number` is the delivery's, counted by the broker. `ended` is the error that the worker reported; empty when it
    was killed or got stuck. `at_s` is in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)
    number: Number
    worker: GivenName
    host: GivenName
    device: GivenName
    at_s: Moment
    ended: str = ""


class Failure(Message):
    """A piece of a job that will have no result. `stage` says where, `error` what and why, in a line.

    `start_s` and `end_s` say which seconds of the media are missing. `entire_segment`: the segment will have no
    further part; a `key.segment` of -1 stands for the whole job. `at_s` is when it failed, in seconds since 1970.
    `worker` published it, after these `attempts`; `deliveries` also counts those that were handed back untouched.
    """

    type: Literal["failure"] = "failure"
    key: Key
    stage: Name
    entire_segment: bool = False
    error: str
    detail: str = ""
    start_s: Seconds = 0.0
    end_s: Seconds = 0.0
    worker: GivenName = ""
    deliveries: Count = 1
    attempts: Annotated[tuple[Attempt, ...], FailFast()] = ()
    at_s: Moment = 0.0


class Done(Message):
    """The job is over: what it counted, and a digest over its ordered results.

    `failures` are the first ones in words, and `more_failures` counts the rest; `missing` are the first spans of the
    media, in seconds, that they took. `files` and `more_files` likewise. A job that was `cancelled` has no results.
    """

    type: Literal["done"] = "done"
    job: JobRef
    segments: Number
    frames: Count
    lost: Count
    failures: Annotated[tuple[str, ...], FailFast()] = ()
    more_failures: Count = 0
    missing: Annotated[tuple[tuple[Seconds, Seconds], ...], FailFast()] = ()
    cancelled: bool = False
    digest: Label = ""
    files: Annotated[tuple[GivenName, ...], FailFast()] = ()
    more_files: Count = 0
    notes: Annotated[tuple[str, ...], FailFast()] = ()

    @property
    def failed(self) -> int:
        """How many failures there are."""
        return len(self.failures) + self.more_failures


class CollectRequest(Message):
    """Asks a worker that hosts `collect` to finish a job for a publisher that has only NATS; `name` is its media's."""

    type: Literal["collect"] = "collect"
    job: JobRef
    name: GivenName = ""


class JobState(StrEnum):
    """How far a job is; the last three are ends."""

    PUBLISHING = "publishing"  # or its publisher stopped half-way: the same command goes on
    PUBLISHED = "published"
    DONE = "done"
    FAILED = "failed"  # it ended, with failures
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Manifest(BaseModel):
    """A job in KV `rigflow_jobs`: what it is, and how far it is.

    `source` identifies its input. `segments` are with the broker, the first `sent_s` of `duration_s` seconds;
    `total` is how many there are, once all are. `segments_done`, `frames` and `lost` are what its collector has seen.
    `failures` is their number, `reasons` the text of the first few, `missing` the seconds they took. `hosted`: a worker
    collects it, for a publisher that has only NATS. `results_evicted`: its collector took results off a full stream.
    """

    model_config = ConfigDict(frozen=True)
    job: JobRef
    name: GivenName
    source: str = ""
    hosted: bool = False
    state: JobState = JobState.PUBLISHING
    segments: Number = 0
    total: Number | None = None
    sent_s: Seconds = 0.0
    duration_s: Seconds = 0.0
    segments_done: Number = 0
    frames: Count = 0
    lost: Count = 0
    failures: Count = 0
    reasons: tuple[str, ...] = ()
    missing: tuple[tuple[Seconds, Seconds], ...] = ()
    files: tuple[GivenName, ...] = ()
    results_evicted: bool = False
    created_s: Moment = 0.0
    updated_s: Moment = 0.0
    ended_s: Moment = 0.0


AnyMessage: TypeAlias = Annotated[
    Segment | PartMessage | Result | Fragment | Failure | Done | CollectRequest, Field(discriminator="type")
]
_ANY: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def decode(body: Buffer) -> tuple[AnyMessage, list[memoryview]]:
    """`(message, buffers)` of any body: its arrays fit their buffers. Raises MessageError, and nothing else."""
    meta, buffers = unpack(body)
    try:
        if meta.get("version") != VERSION:
            raise MessageError(f"it is not of version {VERSION}, the one that this rigflow reads")
        message = _ANY.validate_python(meta)
        message.check(buffers)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise MessageError(f"not a rigflow message: {clean_name(format_field_error(first))}") from error
    except MessageError as error:
        raise MessageError(f"not a rigflow message: {clean_name(error.what)}") from error
    return message, buffers
