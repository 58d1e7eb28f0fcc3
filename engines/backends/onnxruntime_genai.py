"""onnxruntime-genai: language models as folders of ONNX Runtime GenAI, on the CPU and by CUDA on a GPU."""

from importlib.util import find_spec

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import LANGUAGE_MODELS
from engines.ports import Device, Session
from schemas.model import ModelSpec


class OnnxRuntimeGenAi(FilesBackend):
    """Opens sessions of ONNX Runtime and GenAI."""

    name = "onnxruntime-genai"
    needs = LANGUAGE_MODELS

    def refuses(self, device: Device) -> str:
        """A GPU needs the library that is built for CUDA."""
        if device.gpu is None or find_spec("onnxruntime_genai") is None:
            return ""
        import onnxruntime_genai

        if onnxruntime_genai.is_cuda_available():
            return ""
        return "the installed onnxruntime-genai has no CUDA: pip install onnxruntime-genai-cuda"

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.inference.genai import GenAiSession
        from engines.inference.genai_library import library
        from engines.inference.resident import place_of

        library()
        place = place_of(card.name, device.gpu, self._settings.tf32)
        return GenAiSession(model, card, self._settings.kv_bytes, place)
