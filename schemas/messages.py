"""What travels: pydantic models over msgpack bodies (`schemas.wire`). Every id is derived, never random."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from schemas.grid import Clock
from schemas.wire import Buffer, pack, unpack

VERSION = 1


class Lane(StrEnum):
    """Who waits: a person (`interactive`) or nobody (`bulk`)."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Message(BaseModel):
    """Base of all that travels: immutable meta; `encode` and `decode` add and take the buffers."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = VERSION

    def encode(self, buffers: Sequence[Buffer] = ()) -> bytes:
        """The body that carries this meta and `buffers`."""
        return pack(self.model_dump(mode="json"), buffers)


class JobRef(BaseModel):
    """Which job a message belongs to, and what the job is pinned to.

    `round` counts how often the job was begun anew under its id: what is left of an earlier round is none of this one.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    space: str = "main"
    pipeline: str
    revision: str
    lane: Lane = Lane.BULK
    round: int = 0

    @property
    def whole(self) -> str:
        """How the ids of the job's messages begin, in any round. The space is first: a duplicate window knows none."""
        return f"{self.space}/{self.id}/"

    @property
    def identity(self) -> str:
        """How the ids of the messages of this round begin."""
        return f"{self.whole}{self.revision}" + (f".{self.round}" if self.round else "")


class MediaInfo(BaseModel):
    """What `split` learned about a media's picture; everything downstream that needs it, gets it from here.

    `origin` is the pts of the first presented frame in units of `time_base`, `last` that of the last one where pts can
    be trusted; colour fields are FFmpeg's numbers (AVColorSpace and friends, 2 is unspecified). `duration_s` is an
    estimate for progress bars only.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["video", "image"]
    name: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    time_base: tuple[int, int] = (1, 1)
    origin: int = 0
    last: int | None = None
    pixel_format: str = ""
    frame_rate: tuple[int, int] = (0, 1)
    sample_aspect: tuple[int, int] = (1, 1)
    color_range: int = 0
    color_space: int = 2
    color_primaries: int = 2
    color_transfer: int = 2
    duration_s: float = 0.0
    sound: tuple[str, ...] = ()

    @property
    def clock(self) -> Clock:
        """The media's own clock."""
        return Clock(Fraction(*self.time_base), self.origin)


class Item(BaseModel):
    """One image of a segment of images: its name, and its own outcome once it has failed.

    `path` names a file that publisher and workers share; the segment then has no buffers.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    path: str = ""
    error: str = ""


class Key(BaseModel):
    """Where in its job a piece belongs: `last` marks the last part of a segment, `final` the job's last segment."""

    model_config = ConfigDict(frozen=True)
    job: JobRef
    segment: int
    final: bool = False
    part: int = 0
    last: bool = True

    def message_id(self, stage: str) -> str:
        """The `Nats-Msg-Id` of the message in front of `stage`: `space/job/revision[.round]/segment/part/stage`."""
        return f"{self.job.identity}/{self.segment}/{self.part}/{stage}"


class Segment(Message):
    """A piece of compressed media, in front of `decode`. One buffer for video, one for each item of images.

    Video: the buffer is a whole file of format `container`, decodable by itself. The segment owns the frames (and
    the windows that start) in `[start, end)`, in pts of the media's clock; `end` None: to the end of the media.
    """

    type: Literal["segment"] = "segment"
    key: Key
    media: MediaInfo
    container: str = ""
    start: int = 0
    end: int | None = None
    items: tuple[Item, ...] = ()

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it answers for; (0, 0) for images."""
        if self.media.kind == "image":
            return 0.0, 0.0
        clock = self.media.clock
        end_s = self.media.duration_s if self.end is None else clock.seconds(self.end)
        return clock.seconds(self.start), max(end_s, clock.seconds(self.start))


class ArraySpec(BaseModel):
    """An array on the wire: numpy dtype string, shape, and which buffer holds its bytes in C order."""

    model_config = ConfigDict(frozen=True)
    dtype: str
    shape: tuple[int, ...]
    buffer: int


class PartMeta(BaseModel):
    """What a part carries beside its arrays, from decode to result.

    `pts` has one entry a window (its first tick, in the media's clock) for video and one an item for images. `frames`
    and `lost` count the frames this part owns and those that damage took; `notes` says in words what was out of the
    ordinary.
    """

    model_config = ConfigDict(frozen=True)
    key: Key
    media: MediaInfo
    pts: tuple[int, ...] = ()
    items: tuple[Item, ...] = ()
    frames: int = 0
    lost: int = 0
    notes: tuple[str, ...] = ()

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds in which its windows begin, up to where the next would; (0, 0) for images."""
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
    arrays: dict[str, ArraySpec]

    @property
    def key(self) -> Key:
        """Where in its job it belongs."""
        return self.meta.key

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it answers for; (0, 0) for images."""
        return self.meta.span_s


@dataclass(frozen=True, slots=True)
class PartMark:
    """What a result's header says of it, so that progress is counted without reading bodies."""

    round: int
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
        return cls(key.job.round, key.segment, key.part, key.last, key.final, meta.frames, meta.lost)

    def header(self) -> str:
        """Seven numbers in the order of the fields."""
        return " ".join(str(int(value)) for value in astuple(self))

    @classmethod
    def parse(cls, header: str) -> Self:
        """The mark in a header. Raises ValueError."""
        number, segment, part, last, final, frames, lost = map(int, header.split())
        return cls(number, segment, part, bool(last), bool(final), frames, lost)


class Result(Message):
    """What `encode` made of one part; `meta.key` says where it belongs, the format's own facts are in `facts`."""

    type: Literal["result"] = "result"
    meta: PartMeta
    format: str
    arrays: dict[str, ArraySpec] = {}
    facts: dict[str, Any] = {}


class Fragment(Message):
    """What no stage touches (sound), stream-copied by `split`: packets of one segment, for `collect` to mux.

    One buffer: a matroska or mp4 file (`container`) with only those streams.
    """

    type: Literal["fragment"] = "fragment"
    key: Key
    media: MediaInfo
    container: str


class Attempt(BaseModel):
    """A time that a worker began with a message and did not finish it: which one, where, and since when.

    `number` is the delivery's, counted by the broker. `ended` is what the worker said of the end; nothing, when it was
    killed or got stuck. `at_s` is in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)
    number: int
    worker: str
    host: str
    device: str
    at_s: float
    ended: str = ""


class Failure(Message):
    """A piece of a job that will have no result. `stage` says where, `error` what and why, in a line.

    `start_s` and `end_s` say which seconds of the media are missing. `whole`: the segment will have no further part;
    a `key.segment` of -1 stands for the whole job. `at_s` is when it failed, in seconds since 1970. `worker` told
    of it, after these `attempts`; `deliveries` counts what was handed back untouched too.
    """

    type: Literal["failure"] = "failure"
    key: Key
    stage: str
    whole: bool = False
    error: str
    detail: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    worker: str = ""
    deliveries: int = 1
    attempts: tuple[Attempt, ...] = ()
    at_s: float = 0.0


class Done(Message):
    """The job is over: what it counted, and a digest over its ordered results.

    `missing` are the spans of the media, in seconds, that `failures` took. A job that was `cancelled` has no results.
    """

    type: Literal["done"] = "done"
    job: JobRef
    segments: int
    frames: int
    lost: int
    failures: tuple[str, ...] = ()
    missing: tuple[tuple[float, float], ...] = ()
    cancelled: bool = False
    digest: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class CollectRequest(Message):
    """Asks a worker that hosts `collect` to finish a job for a publisher that has only NATS; `name` is its media's."""

    type: Literal["collect"] = "collect"
    job: JobRef
    name: str = ""


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

    `source` tells its input from others. `segments` are with the broker, the first `sent_s` of `duration_s` seconds;
    `total` is how many there are, once all are. `segments_done`, `frames` and `lost` are what its collector has seen.
    `failures` counts, `reasons` has the first few in words, `missing` the seconds they took. `hosted`: a worker
    collects it, for a publisher that has only NATS. `thinned`: its collector took results off a full stream.
    """

    model_config = ConfigDict(frozen=True)
    job: JobRef
    name: str
    source: str = ""
    hosted: bool = False
    state: JobState = JobState.PUBLISHING
    segments: int = 0
    total: int | None = None
    sent_s: float = 0.0
    duration_s: float = 0.0
    segments_done: int = 0
    frames: int = 0
    lost: int = 0
    failures: int = 0
    reasons: tuple[str, ...] = ()
    missing: tuple[tuple[float, float], ...] = ()
    files: tuple[str, ...] = ()
    thinned: bool = False
    created_s: float = 0.0
    updated_s: float = 0.0
    ended_s: float = 0.0


AnyMessage: TypeAlias = Annotated[
    Segment | PartMessage | Result | Fragment | Failure | Done | CollectRequest, Field(discriminator="type")
]
_ANY: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def decode(body: Buffer) -> tuple[AnyMessage, list[memoryview]]:
    """`(message, buffers)` of any body. Raises ValueError when it is no message of rigflow."""
    meta, buffers = unpack(body)
    return _ANY.validate_python(meta), buffers
