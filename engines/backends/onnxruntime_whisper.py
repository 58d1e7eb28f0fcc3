"""onnxruntime-whisper: Whisper's networks as folders of ONNX files, on the CPU and by CUDA on a GPU."""

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import TRANSCRIPTION_BY_ONNX
from engines.ports import Device, Session
from schemas.model import ModelSpec


class OnnxRuntimeWhisper(FilesBackend):
    """Opens sessions of ONNX Runtime."""

    name = "onnxruntime-whisper"
    needs = TRANSCRIPTION_BY_ONNX

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.inference.resident import place_of
        from engines.inference.whisper_onnx import WhisperOnnxSession

        return WhisperOnnxSession(model, card, place_of(card.name, device.gpu, self._settings.tf32))
