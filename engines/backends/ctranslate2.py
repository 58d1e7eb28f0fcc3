"""ctranslate2: Whisper's networks as folders of faster-whisper, on the CPU and by CUDA on GPUs since Maxwell."""

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import TRANSCRIPTION
from engines.ports import Device, Session
from schemas.model import ModelSpec


class CTranslate2(FilesBackend):
    """Opens sessions of CTranslate2."""

    name = "ctranslate2"
    needs = TRANSCRIPTION

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.inference.whisper import WhisperSession

        return WhisperSession(model, card, None if device.gpu is None else device.gpu.number)
