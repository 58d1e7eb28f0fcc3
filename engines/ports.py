"""Protocols by which the folders of engines and the packages above use devices, operators and backends.

Of engines, it imports only values that are passed, so that every folder can import it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel

from engines.content import Content
from engines.encoding import PictureEncoder
from engines.media.stills import Decoded
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan, Tensor
from schemas.engine import EngineSpec, Precision
from schemas.errors import RigflowError
from schemas.model import ModelSpec, TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage
from schemas.segments import Segment
from schemas.settings import Settings


class Preprocessing(Protocol):
    """Conversion of single frames to pictures; arrays may be on a GPU, where NumPy takes them for its own."""

    def convert(self, frame: Decoded, orientation: int = 1) -> dict[str, Array]:
        """Arrays of one frame: see `engines.pictures.HostPictures.convert`."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was converted on this thread is there."""
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


@dataclass(slots=True)
class BatchCounts:
    """Counts of runs of a model: how many, the rows in them, and the most rows that they could have had.

    `times` has rows, most rows and seconds of each run: from its start, or the end of the run before it if that is
    later, to its outputs.
    """

    batches: int = 0
    rows: int = 0
    room: int = 0
    times: list[tuple[int, int, float]] = field(default_factory=list)
    _changing: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def add(self, rows: int, room: int) -> None:
        """Count one run. Called by any thread."""
        with self._changing:
            self.batches += 1
            self.rows += rows
            self.room += room

    def take(self) -> "BatchCounts":
        """Return the counts, and begin again with zeros."""
        with self._changing:
            taken = BatchCounts(self.batches, self.rows, self.room, self.times)
            self.batches = self.rows = self.room = 0
            self.times = []
        return taken


class RowKind(NamedTuple):
    """What rows share that can be in one batch: their bytes. It has at most `limit` of them."""

    row_bytes: int
    limit: int


class Operator(Protocol):
    """What a stage between decode and encode does. One a stage and worker, used by one thread at a time.

    Made of the stage, and of its model where it names one. Raises PipelineError for options that it does not have.
    `options_class` has them, as fields.
    """

    options_class: type[BaseModel]
    needs_model: bool
    entire_media: tuple[str, ...]
    """Arrays that it takes of all windows of a media in one part, see engines.gathering; () where it takes parts."""
    of_texts: bool
    """Whether it runs the text tower of its model, and not the model's own graph."""
    counts: BatchCounts

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

    def sounds(self, inputs: Mapping[str, Tensor]) -> Mapping[str, TensorSpec]:
        """What windows of sound it wants decode to make: name -> the input of its model that takes them."""
        ...

    @property
    def head_s(self) -> float:
        """How many seconds of the beginning of a media of sound it wants in the array `head` of each part."""
        ...

    def plan(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The arrays that it makes of these, its pictures among them. Raises PipelineError by stage and field."""
        ...

    def rows(self, part: Part) -> int:
        """How many rows a part adds to a batch of its model."""
        ...

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Parts with the arrays that it makes, or the error of that part alone; same length and order as `parts`.

        A part's answer depends on that part alone. `session`: of the stage's model. `tick` is called as it moves.
        """
        ...


@runtime_checkable
class Filling(Protocol):
    """An operator that knows which rows share a batch, and that can leave rows to a later, fuller one."""

    def waiting_rows(self, part: Part, session: Session) -> Mapping[RowKind, int]:
        """How many rows of a part wait for a batch; none where the part is to wait for no others."""
        ...

    def run_full(self, parts: Sequence[Part], session: Session, tick: Tick) -> list[Part | RigflowError]:
        """As `run`, but rows that fill no batch are left: their part's outcome is an `engines.inference.work.Begun`."""
        ...


class Device(Protocol):
    """Where a worker decodes, preprocesses, infers and encodes.

    `concurrency`: segments it works on at a time. `host_is_free`: it infers beside the host, whose steps run on threads
    of their own meanwhile: pictures are encoded, and what models need is made.
    """

    name: str
    concurrency: int
    host_is_free: bool

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
    """What runs models. Made of a worker's settings; has no state.

    One that imports packages that may be missing has `needs`, an `engines.extras.Needs`.
    """

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
