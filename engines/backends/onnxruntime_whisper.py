"""onnxruntime-whisper: Whisper's networks as folders of ONNX files, on the CPU and by CUDA on a GPU."""

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class OnnxRuntimeWhisper:
    """One core a session on the CPU."""

    name = "onnxruntime-whisper"
    needs = Needs(("tokenizers",), "stt")

    def __init__(self, settings: Settings) -> None:
        self._tf32 = settings.tf32

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ONNX Runtime, which is imported now. Raises ModelError."""
        from engines.inference.resident import place_of
        from engines.inference.whisper_onnx import WhisperOnnxSession

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name}: {self.name} runs folders", "add the folder of the model again")
        place = place_of(card.name, device.gpu, self._tf32)
        return WhisperOnnxSession(model, card, place)
