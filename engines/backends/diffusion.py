"""diffusion: Stable Diffusion as folders of ONNX files, on the CPU and by CUDA on a GPU."""

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import PROMPTS
from engines.ports import Device, Session
from schemas.model import ModelSpec


class Diffusion(FilesBackend):
    """Opens a session of ONNX Runtime for each network of a folder."""

    name = "diffusion"
    needs = PROMPTS

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.diffusion.session import DiffusionSession

        return DiffusionSession(model, card, self._settings.max_pixels, device.gpu, self._settings.tf32)
