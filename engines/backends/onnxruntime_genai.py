"""onnxruntime-genai: language models as folders of ONNX Runtime GenAI, on the CPU and by CUDA on a GPU."""

from importlib.util import find_spec

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class OnnxRuntimeGenAi:
    """One core a session on the CPU."""

    name = "onnxruntime-genai"
    needs = Needs(("onnxruntime_genai", "jinja2"), "llm")

    def __init__(self, settings: Settings) -> None:
        self._kv_bytes = settings.kv_bytes
        self._tf32 = settings.tf32

    def refuses(self, device: Device) -> str:
        """A GPU needs the library that is built for CUDA."""
        if device.gpu is None or find_spec("onnxruntime_genai") is None:
            return ""
        import onnxruntime_genai

        if onnxruntime_genai.is_cuda_available():
            return ""
        return "the installed onnxruntime-genai has no CUDA: pip install onnxruntime-genai-cuda"

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ONNX Runtime and GenAI, which are imported now. Raises ModelError, PluginMissing."""
        from engines.inference.genai import GenAiSession
        from engines.inference.genai_library import library
        from engines.inference.resident import place_of

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name}: onnxruntime-genai runs folders", "add the folder of the model again")
        library()
        place = place_of(card.name, device.gpu, self._tf32)
        return GenAiSession(model, card, self._kv_bytes, place)
