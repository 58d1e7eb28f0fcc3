"""ctranslate2: Whisper's networks as folders of faster-whisper, on the CPU and by CUDA on GPUs since Maxwell."""

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class CTranslate2:
    """One core a session on the CPU."""

    name = "ctranslate2"
    needs = Needs(("ctranslate2", "tokenizers"), "stt")

    def __init__(self, settings: Settings) -> None:
        pass

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of CTranslate2, which is imported now. Raises ModelError."""
        from engines.inference.whisper import WhisperSession

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name}: ctranslate2 runs folders", "add the folder of the model again")
        return WhisperSession(model, card, None if device.gpu is None else device.gpu.number)
