"""What travels: pydantic models over msgpack bodies (`schemas.wire`). Every id is derived, never random."""

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

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
    """Which job a message belongs to, and what the job is pinned to."""

    model_config = ConfigDict(frozen=True)
    id: str
    space: str = "main"
    pipeline: str
    revision: str
    lane: Lane = Lane.BULK


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
        """The `Nats-Msg-Id` of the message in front of `stage`: `space/job/revision/segment/part/stage`.

        The space comes first because JetStream's duplicate window knows no tenants.
        """
        return f"{self.job.space}/{self.job.id}/{self.job.revision}/{self.segment}/{self.part}/{stage}"


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


class PartMessage(Message):
    """A part between two stages in different processes: named arrays."""

    type: Literal["part"] = "part"
    meta: PartMeta
    arrays: dict[str, ArraySpec]


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


class Failure(Message):
    """A piece of a job that will have no result. `stage` says where, `error` what and why, in a line.

    `start_s` and `end_s` say which seconds of the media are missing. `whole`: the segment will have no further part;
    a `key.segment` of -1 stands for the whole job. `at_s` is when it failed, in seconds since 1970.
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
    at_s: float = 0.0


class Done(Message):
    """The job is over: what it counted, and a digest over its ordered results."""

    type: Literal["done"] = "done"
    job: JobRef
    segments: int
    frames: int
    lost: int
    failures: tuple[str, ...] = ()
    digest: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class CollectRequest(Message):
    """Asks a worker that hosts `collect` to finish a job for a publisher that has only NATS; `name` is its media's."""

    type: Literal["collect"] = "collect"
    job: JobRef
    name: str = ""


class Manifest(BaseModel):
    """A job in KV `rigflow_jobs`. `segments` is known once everything is `published`.

    `hosted`: a worker collects it, for a publisher that has only NATS.
    """

    model_config = ConfigDict(frozen=True)
    job: JobRef
    name: str
    state: Literal["publishing", "published", "done", "failed", "cancelled"] = "publishing"
    segments: int = 0
    created_s: float = 0.0
    hosted: bool = False


AnyMessage: TypeAlias = Annotated[
    Segment | PartMessage | Result | Fragment | Failure | Done | CollectRequest, Field(discriminator="type")
]
_ANY: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def decode(body: Buffer) -> tuple[AnyMessage, list[memoryview]]:
    """`(message, buffers)` of any body. Raises ValueError when it is no message of rigflow."""
    meta, buffers = unpack(body)
    return _ANY.validate_python(meta), buffers
