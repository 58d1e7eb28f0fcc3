"""Tries a Stable Diffusion: one picture in few steps, in a process of its own, for some graphs end the process."""

from engines.content import Content, ModelFiles
from engines.diffusion.drawing import Drawing
from engines.diffusion.session import DiffusionSession
from engines.inference.trial import HINT, limit_memory
from engines.own_process import in_own_process
from engines.part import Array, no_tick
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings

_TEXT, _STEPS = "a photo of a dog", 2


def drawn(spec: ModelSpec, content: Content) -> tuple[str, Array]:
    """Return in words what was drawn, and the picture `[H, W, 3]` uint8. Raises ModelError, PluginMissing."""
    picture: Array = in_own_process(spec.name, "draws with", HINT, _tried, spec, content)
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    return f'drew "{_TEXT}" in {_STEPS} steps, {size}: good pictures take more', picture


def _tried(spec: ModelSpec, content: Content) -> Array:
    if not isinstance(content, ModelFiles):
        why = f"model {spec.name} is one file, and diffusion needs a folder"
        raise ModelError(why, "add the folder of the model again")
    limit_memory()
    session = DiffusionSession(content, spec, Settings().max_pixels)
    return session.draw(Drawing(_TEXT, steps=_STEPS, sampler="ddim"), no_tick)[0]
