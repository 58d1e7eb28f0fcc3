"""The host's cores as a worker sees them."""

from collections.abc import Iterator, Sequence

from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.images import decode_images
from engines.media.limits import Limits
from engines.media.shared import SharedFolders
from engines.outputs.h264 import X264
from engines.part import Part, Tick, no_tick
from engines.ports import Preprocessing, Session
from engines.transforms import Preprocess
from schemas.messages import Segment
from schemas.pipeline import ModelSpec, PipelineSpec, PreprocessStage
from schemas.settings import Settings


class Host:
    """The host's cores: one segment at a time on the worker's computing thread."""

    name = "cpu"
    concurrency = 1
    gpu = None
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
