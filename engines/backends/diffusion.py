"""diffusion: Stable Diffusion as folders of ONNX files, on the CPU and by CUDA on a GPU."""

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class Diffusion:
    """Opens a session of ONNX Runtime for each network of a folder; on the CPU they compute on one core."""

    name = "diffusion"
    needs = Needs(("tokenizers",), "imagine")

    def __init__(self, settings: Settings) -> None:
        self._tf32 = settings.tf32
        self._max_pixels = settings.max_pixels

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """The networks, loaded. Raises ModelError, DeviceLost."""
        from engines.diffusion.session import DiffusionSession

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name}: diffusion runs folders", "add the folder of the model again")
        return DiffusionSession(model, card, self._max_pixels, device.gpu, self._tf32)
