"""Networks that rigflow's own kernels compute on a GPU, each form in a session of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from engines.content import Content, graph_of
from engines.inference.compact_graph import CompactNet, compact_net
from engines.inference.weights import parsed_graph
from engines.inference.x3d_graph import X3dNet, x3d_net
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
        net = _net_of(model, name)
    except ModelError:
        return ""
    if net is None:
        return ""
    return "compact upscaler" if isinstance(net, CompactNet) else "X3D network"


def has_own_kernels(model: Content, name: str, capability: tuple[int, int]) -> bool:
    """Whether own kernels compute a model on a GPU of that compute capability."""
    return capability >= _FIRST_CAPABILITY and bool(form_of(model, name))


def own_session(
    model: Content, card: ModelSpec, gpu: "CudaGpu", cache: Path, options: ComputeOptions, pictures_stay: bool
) -> "CudaSession":
    """A session that computes with own kernels. Raises ModelError: it has no such form; CompilerMissing, DeviceLost."""
    net = _net_of(model, card.name)
    if isinstance(net, CompactNet):
        from engines.inference.compact import CompactSession

        return CompactSession(model, card, gpu, cache, options, net, pictures_stay)
    if net is not None:
        from engines.inference.x3d import X3dSession

        return X3dSession(card, gpu, cache, options, net, pictures_stay)
    raise ModelError(f"model `{card.name}` has no form that own kernels compute", "compute it without own kernels")


def _net_of(model: Content, name: str) -> CompactNet | X3dNet | None:
    """The network of a model, if it has one of the forms. Raises ModelError: it is no ONNX file."""
    parsed = parsed_graph(graph_of(model), name)
    return compact_net(parsed) or x3d_net(parsed)
