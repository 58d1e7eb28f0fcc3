"""onnxruntime: ONNX files as they are, on the CPU and by CUDA on a GPU."""

from engines.content import Content
from engines.inference.heads import Heads
from engines.inference.states import without_state
from engines.ports import Device, LoadedEngine, Session
from schemas.model import ModelSpec
from schemas.settings import Settings


class OnnxRuntime:
    """One core a session on the CPU; on a GPU, rows are gathered there."""

    name = "onnxruntime"

    def __init__(self, settings: Settings) -> None:
        self._tf32 = settings.tf32

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ONNX Runtime, which is imported now. Raises ModelError."""
        if device.gpu is None:
            from engines.inference.onnxruntime import OnnxRuntimeSession

            return OnnxRuntimeSession(model, card)
        from engines.inference.cuda import CudaSession

        session = CudaSession(model, card, device.gpu, tf32=self._tf32, pictures_stay=device.encoder.on_gpu)
        session.reduce(Heads(without_state(card)).reductions)
        return session
