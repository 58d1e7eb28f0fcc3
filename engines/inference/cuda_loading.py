"""Loads ONNX Runtime's sessions on a GPU."""

import contextlib
import ctypes
import io
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from engines.content import Content, graph_of
from engines.extras import install_extra
from engines.inference.onnxruntime import LOADABLE, new_session
from engines.inference.reasons import one_line
from engines.inference.weights import check_weights, parsed_graph
from schemas.errors import ModelError

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_PROVIDER, _GPU_MEMORY = "CUDAExecutionProvider", "Cuda"
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType


def load_on_gpu(
    model: Content,
    name: str,
    gpu: "CudaGpu",
    tf32: bool = False,
    search: str = "HEURISTIC",
    stream: Any = None,
    arena: str = "kSameAsRequested",
    replays: bool = False,
    layout: str = "",
) -> Any:
    """Load a session of ONNX Runtime on a GPU, which computes on `stream`, or on one of its own.

    `search`: how cuDNN's algorithms are chosen; HEURISTIC chooses by shapes alone. `arena`: how the runtime's memory
    grows. `replays`: runs are recorded as CUDA graphs, by the number in their options. `layout`: of convolutions,
    `nchw` or `nhwc`, "" by the graph. Raises ModelError, DeviceLost.
    """
    if hasattr(ort, "preload_dlls"):  # cuDNN and cuBLAS as pip installs them; those in the system's path need no help
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls(directory="")
    if _PROVIDER not in ort.get_available_providers():
        raise ModelError(f"model `{name}`: this ONNX Runtime has no CUDA", f"{install_extra('gpu')}, not onnxruntime")
    check_weights(model, name)
    ort.set_default_logger_severity(3)  # it warns of each provider that is no plugin
    channels_last = layout == "nhwc" or (not layout and prefers_channels_last(graph_of(model), name, tf32))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    provider = {
        "device_id": str(gpu.number),
        **({} if stream is None else {"user_compute_stream": str(stream.handle)}),
        "cudnn_conv_algo_search": search,
        "arena_extend_strategy": arena,
        "use_tf32": str(int(tf32)),
        "enable_cuda_graph": str(int(replays)),
        "prefer_nhwc": str(int(channels_last)),
    }
    try:
        session = new_session(model, options, [(_PROVIDER, provider), "CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes share no base below Exception
        if not gpu.works():
            raise gpu.lost(error) from error
        raise ModelError(f"model `{name}` cannot be loaded: {one_line(error)}", LOADABLE) from error
    if session.get_providers()[0] != _PROVIDER:  # without cuDNN it uses the CPU and reports nothing
        raise ModelError(f"model `{name}`: ONNX Runtime cannot use CUDA here", "install cuDNN 9 and cuBLAS")
    return session


def on_host(session: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the inputs that a session reads on the host, and the outputs that it makes there.

    Nodes without a kernel for GPUs run on the processor. ONNX Runtime copies an input of theirs as it is bound, and an
    output behind the run, on a stream that waits for none of ours. Before 1.23 it does not say which: then it may be
    all.
    """
    sides = []
    for nodes, places in (
        (session.get_inputs(), getattr(session, "get_input_memory_infos", None)),
        (session.get_outputs(), getattr(session, "get_output_memory_infos", None)),
    ):
        known = [each.name for each in places()] if places else [""] * len(nodes)
        names = (node.name for node, place in zip(nodes, known, strict=True) if place != _GPU_MEMORY)
        sides.append(frozenset(names))
    read, made = sides
    return read, made


def leave_loaded(session: Any, *streams: Any) -> None:
    """Leave the runtime's own memory, and the streams that it computes on, to the end of the process.

    ONNX Runtime 1.31 ends the process if it cannot free pinned memory, as on threads other than its own.
    """
    for each in (session, *streams):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def prefers_channels_last(graph: bytes, name: str, tf32: bool) -> bool:
    """Return whether convolutions run faster with channels last: in two dimensions, on the matrix units of a GPU,
    and not between norms, before which they are transposed back. In float32 and in three dimensions they are slower.
    """
    parsed = parsed_graph(graph, name).graph
    weights = {tensor.name: (len(tensor.dims), tensor.data_type) for tensor in parsed.initializer}
    kernels = {weights.get(node.input[1]) for node in parsed.node if node.op_type == "Conv"}
    normed = any(node.op_type in ("InstanceNormalization", "GroupNormalization") for node in parsed.node)
    return bool(kernels) and not normed and kernels <= {(4, _FLOAT16), *([(4, _FLOAT)] if tf32 else [])}
