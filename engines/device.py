"""What a worker computes on: the host's cores, or one card. This is the one place that knows there are two."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import av

from engines.inference.session import Session
from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.images import decode_images
from engines.media.limits import Limits
from engines.media.orientation import UPRIGHT
from engines.media.shared import SharedFolders
from engines.outputs.h264 import X264, PictureEncoder
from engines.part import Array, Part, Tick, no_tick
from engines.transforms import Preprocess
from schemas.errors import UsageError
from schemas.messages import Segment
from schemas.pipeline import ModelSpec, PipelineSpec, PreprocessStage
from schemas.settings import Settings

if TYPE_CHECKING:
    from engines.cuda.card import CudaCard


class Preprocessing(Protocol):
    """A preprocess stage's conversion of single frames; arrays may be on a card, where NumPy takes them for its own."""

    def convert(self, frame: av.VideoFrame, orientation: int = UPRIGHT) -> dict[str, Array]:
        """Arrays of one frame; see `engines.transforms.Preprocess.convert`."""
        ...

    def settle(self) -> None:
        """Wait until all that was converted on this thread is there."""
        ...


@runtime_checkable
class Ahead(Protocol):
    """Parts of a segment that are decoded before they are asked for."""

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer at once."""
        ...

    def begin(self) -> None:
        """Begin to decode; otherwise the first `next` does."""
        ...


class Device(Protocol):
    """Where a worker decodes, preprocesses, infers and encodes. `abreast`: segments it works on at a time."""

    name: str
    abreast: int

    @property
    def card(self) -> "CudaCard | None":
        """The card, where it is one."""
        ...

    def preprocess(self, stage: PreprocessStage) -> Preprocessing:
        """Conversion of frames for a preprocess stage."""
        ...

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        spec: PipelineSpec,
        preprocess: Preprocessing | None,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Parts of a segment, one at a time as asked for; raw frames for a queue where there is no `preprocess`."""
        ...

    def session(self, model: bytes, spec: ModelSpec) -> Session:
        """A model, loaded. Raises ModelError."""
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


class Host:
    """The host's cores: one segment at a time on the worker's computing thread."""

    name = "cpu"
    abreast = 1
    card = None
    encoder = X264()

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits.of(settings)
        self._shared = SharedFolders.of(settings.shared)

    def preprocess(self, stage: PreprocessStage) -> Preprocess:
        """Conversion of frames by swscale."""
        return Preprocess(stage)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        spec: PipelineSpec,
        preprocess: Preprocessing | None,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Parts of a segment, decoded as they are asked for."""
        convert = preprocess.convert if preprocess else pack_frame
        if segment.media.kind == "image":
            return decode_images(segment, buffers, spec, convert, self._limits, self._shared, tick)
        return decode_video(segment, buffers, spec, convert, limits=self._limits, tick=tick)

    def session(self, model: bytes, spec: ModelSpec) -> Session:
        """A model in ONNX Runtime on one core."""
        from engines.inference.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(model, spec)

    def leave(self) -> None:
        """Nothing to leave."""

    def facts(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing to give back."""


def open_device(name: str, settings: Settings, cache: Path) -> Device:
    """The device called `cpu`, `cuda:<index>` or `cuda:<UUID>`. Raises UsageError, DeviceLost."""
    if name == "cpu":
        return Host(settings)
    from engines.cuda.device import CudaDevice

    try:
        return CudaDevice(name, settings, cache)
    except ImportError as error:
        raise UsageError(f"device {name}: {error}", "pip install rigflow[gpu], built for this driver") from error
