"""What the folders of engines are to each other and to the rooms above: protocols, and the values that they pass.

Imports nothing of engines but parts and plans, so that every folder can import it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import av
from pydantic import BaseModel, ConfigDict, Field

from engines.content import Content
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan, Tensor
from schemas.engine import EngineSpec, Precision
from schemas.errors import RigflowError
from schemas.media import MediaInfo
from schemas.model import ModelSpec, PictureSpec
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from schemas.segments import Fragment, Segment
from schemas.settings import Settings


class Preprocessing(Protocol):
    """Conversion of single frames to pictures; arrays may be on a GPU, where NumPy takes them for its own."""

    def convert(self, frame: av.VideoFrame, orientation: int = 1) -> dict[str, Array]:
        """Arrays of one frame: see `engines.pictures.HostPictures.convert`."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was converted on this thread is there."""
        ...


@runtime_checkable
class PrefetchedParts(Protocol):
    """Parts of a segment that are decoded before they are asked for."""

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer at once."""
        ...

    def begin(self) -> None:
        """Begin to decode; otherwise the first `next` does."""
        ...


class Session(Protocol):
    """A model that is loaded and ready, on one device. Used by one thread at a time."""

    @property
    def spec(self) -> ModelSpec:
        """The model card of the model that runs here."""
        ...

    @property
    def batch_bytes(self) -> int:
        """Most bytes of input worth giving to one run: beyond, a batch costs memory and is no faster."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one batch. The arrays belong to the caller, on both sides.

        Raises ModelError when the inputs do not fit the model card or the model fails on them, DeviceLost when only a
        new process can go on.
        """
        ...

    def warm_up(self) -> None:
        """Pay for what only a first run costs. Raises as `run` does."""
        ...

    def close(self) -> None:
        """Give back the device's memory; the session is of no use afterwards. May be called twice."""
        ...


class Operator(Protocol):
    """What a stage between decode and encode does. One a stage and worker, used by one thread at a time.

    Made of the stage, and of its model where it names one. Raises PipelineError for options that it does not have.
    `options_class` has them, as fields.
    """

    options_class: type[BaseModel]
    needs_model: bool

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None: ...

    @property
    def by_source(self) -> bool:
        """Whether the size of what it makes depends on the size of the frame."""
        ...

    @property
    def in_order(self) -> bool:
        """Whether it takes the parts of a segment in their order and all of them, because it has a state."""
        ...

    def pictures(self, inputs: Mapping[str, Tensor]) -> Mapping[str, PictureSpec]:
        """What it wants decode to make of each frame, beside the arrays that are there: name -> how."""
        ...

    def plan(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The arrays that it makes of these, its pictures among them. Raises PipelineError by stage and field."""
        ...

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Parts with the arrays that it makes, or the error of that part alone; same length and order as `parts`.

        A part's answer depends on that part alone. `session`: of the stage's model. `tick` is called as it moves.
        """
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one part: the arrays and `facts` (plain JSON) of its Result."""

    arrays: dict[str, Array]
    facts: dict[str, Any] = field(default_factory=dict)


class Assembler(Protocol):
    """Makes a job's files from its parts. After an error, from here or elsewhere, call `abort`."""

    @property
    def notes(self) -> list[str]:
        """What was out of the ordinary, in words."""
        ...

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Takes the next part in order of (segment, part). Raises OutputError when it cannot be written."""
        ...

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Takes what a segment has beside the picture, before the segment's parts."""
        ...

    def close(self) -> list[Path]:
        """Gives the finished files their names, and returns them. Raises OutputError when they cannot be written."""
        ...

    def abort(self) -> None:
        """Leaves nothing behind. May be called twice; after `close` it does nothing."""
        ...


class Format(Protocol):
    """One kind of result. Has no state: any worker may encode any part, in any order."""

    anywhere: bool
    """Whether it takes arrays where they are, on a GPU too."""

    @property
    def sound(self) -> Literal["copy", "aac"] | None:
        """What becomes of a media's sound; None: the format has no place for what is beside the picture."""
        ...

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Raise PipelineError if parts that hold such arrays can never be encoded for one of these kinds of media."""
        ...

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """What the part becomes; a function of the part and the stage's options alone.

        `tick` is called after each picture, where encoding one takes long.
        Raises PipelineError when the part lacks the arrays that the format is about.
        """
        ...

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Starts the files of a job. `target` has no suffix; the format adds its own.

        Nothing is at the final path before `close`. Raises OutputError when the folder cannot be written.
        """
        ...


class Options(BaseModel):
    """Base of a format's options: immutable, unknown ones are errors, and so is a number in quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class VideoOptions(Options):
    """`crf` is x264's constant quality (lower is better and larger), `preset` its trade of time for size.

    NVENC takes both for the nearest that it knows, see engines.device.nvenc. `sound` "aac" encodes sound that mp4
    cannot hold to AAC; "copy" takes it to mov or mkv, and leaves out what neither holds.
    """

    crf: float = Field(default=18.0, ge=0, le=51)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        "veryfast"
    )
    sound: Literal["copy", "aac"] = "copy"

    @property
    def suffix(self) -> str:
        """The suffix of the files of images."""
        return "png"


class Colour(NamedTuple):
    """What the encoded pictures say about their colours, in FFmpeg's numbers."""

    range: int
    space: int
    primaries: int
    transfer: int


class Pictures(NamedTuple):
    """What to encode: luma and, if there is colour, two chroma planes, each `[N, H, W] uint8`, maybe on a GPU."""

    planes: Sequence[Array]
    colour: Colour
    media: MediaInfo


class PictureEncoder(Protocol):
    """An encoder of H.264. `on_gpu`: it takes planes where they are, without the host."""

    on_gpu: bool

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        """One closed GOP, which needs nothing of any other. Raises PipelineError, and MediaError when it cannot."""
        ...


class Device(Protocol):
    """Where a worker decodes, preprocesses, infers and encodes. `concurrency`: segments it works on at a time."""

    name: str
    concurrency: int

    @property
    def gpu(self) -> Any:
        """The GPU, an `engines.cuda.gpu.CudaGpu`; None on the host."""
        ...

    def preprocess(self, pictures: Mapping[str, PictureSpec]) -> Preprocessing:
        """Conversion of frames to these pictures."""
        ...

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Parts of a segment, one at a time as asked for, with the pictures that `preprocess` makes."""
        ...

    @property
    def encoder(self) -> PictureEncoder:
        """What makes H.264 of pictures."""
        ...

    def leave(self) -> None:
        """This thread is about to end, or needs the device no more."""
        ...

    def facts(self) -> dict[str, object]:
        """What it is and did, for `rigflow status`; empty: nothing worth telling."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that is ready to open, and the ONNX file whose answers it must reproduce."""

    spec: EngineSpec
    plan: bytes
    reference: bytes


class Backend(Protocol):
    """What runs models. Made of a worker's settings; has no state."""

    name: str

    def __init__(self, settings: Settings) -> None: ...

    def refuses(self, device: Device) -> str:
        """Why it cannot run on a device, in words; empty where it can."""
        ...

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A model, loaded; a `Compiler` opens its `engine`. Raises ModelError, DeviceLost.

        A model with further files is `ModelFiles`: `card.files` has their names, and its folder each under its hash.
        """
        ...


@runtime_checkable
class Compiler(Backend, Protocol):
    """A backend that runs engines, which it compiles beforehand for kinds of GPUs.

    `needs_gpu`: it compiles on the GPU that an engine is for, whose name is part of the engine's key.
    """

    needs_gpu: bool

    def installed(self) -> bool:
        """Whether its library is here."""
        ...

    def version(self) -> str:
        """Version of its library. Raises UsageError when it is not installed."""
        ...

    def plans_for(self, targets: Sequence[str]) -> list[tuple[str, ...]]:
        """Which kinds of GPUs, `sm86`, share an engine. Raises UsageError for one that it cannot compile for."""
        ...

    def check_precision(self, target: str, precision: Precision, anyway: bool = False) -> str:
        """A warning, or "" when the precision suits the GPU. Raises UsageError where it never makes sense."""
        ...
