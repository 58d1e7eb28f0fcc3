"""Networks that rigflow's own kernels compute on a GPU, each form in a session of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from engines.content import Content
from engines.inference.compact_graph import compact_net
from engines.inference.x3d_graph import x3d_net
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.inference.cuda import CudaSession

_FIRST_CAPABILITY = (8, 0)  # asynchronous copies to shared memory, and products of 16 x 8 x 16


def form_of(model: Content, name: str) -> str:
    """The form by which own kernels know a model; empty if they do not compute it, or if it is not an ONNX file."""
    try:
        if compact_net(model, name) is not None:
            return "compact upscaler"
        return "X3D network" if x3d_net(model, name) is not None else ""
    except ModelError:
        return ""


def has_own_kernels(model: Content, name: str, capability: tuple[int, int]) -> bool:
    """Whether own kernels compute a model on a GPU of that compute capability."""
    return capability >= _FIRST_CAPABILITY and bool(form_of(model, name))


def own_session(
    model: Content, card: ModelSpec, gpu: "CudaGpu", cache: Path, options: ComputeOptions, pictures_stay: bool
) -> "CudaSession":
    """A session that computes with own kernels. Raises ModelError: it has no such form; CompilerMissing, DeviceLost."""
    if (net := compact_net(model, card.name)) is not None:
        from engines.inference.compact import CompactSession

        return CompactSession(model, card, gpu, cache, options, net, pictures_stay)
    if (x3d := x3d_net(model, card.name)) is not None:
        from engines.inference.x3d import X3dSession

        return X3dSession(card, gpu, cache, options, x3d, pictures_stay)
    raise ModelError(f"model `{card.name}` has no form that own kernels compute", "compute it without own kernels")
