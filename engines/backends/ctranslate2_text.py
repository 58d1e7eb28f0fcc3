"""ctranslate2-text: language models as folders of CTranslate2, on the CPU and by CUDA on GPUs since Pascal."""

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import Needs
from engines.ports import Device, Session
from schemas.model import ModelSpec


class CTranslate2Text(FilesBackend):
    """Opens sessions of CTranslate2."""

    name = "ctranslate2-text"
    needs = Needs(("ctranslate2", "tokenizers", "jinja2"), "llm-ct2")

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.inference.ct2_text import CTranslate2TextSession

        gpu = None if device.gpu is None else device.gpu.number
        return CTranslate2TextSession(model, card, self._settings.kv_bytes, gpu)
