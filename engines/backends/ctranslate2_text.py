"""ctranslate2-text: language models as folders of CTranslate2, on the CPU and by CUDA on GPUs since Pascal."""

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class CTranslate2Text:
    """One core a session on the CPU."""

    name = "ctranslate2-text"
    needs = Needs(("ctranslate2", "tokenizers", "jinja2"), "llm-ct2")

    def __init__(self, settings: Settings) -> None:
        self._kv_bytes = settings.kv_bytes

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of CTranslate2, which is imported now. Raises ModelError, PluginMissing."""
        from engines.inference.ct2_text import CTranslate2TextSession

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name}: ctranslate2 runs folders", "add the folder of the model again")
        return CTranslate2TextSession(model, card, self._kv_bytes, None if device.gpu is None else device.gpu.number)
