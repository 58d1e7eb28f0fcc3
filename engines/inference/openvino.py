"""Runs OpenVINO on the CPU, one thread a session, in the float32 of the graph whatever the processor could do."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.extras import imported
from engines.inference.session import check_inputs, check_model_card, zeros_of
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

# Without a hint of precision it would compute in bfloat16 where there is AMX; pinned, all workers would share one core.
_CONFIG = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
}
_INSTEAD = 'run it by backend = "onnxruntime"'
_MOST_CHARS = 200


class OpenVinoSession:
    """A model on the CPU. Raises PluginMissing; ModelError if `graph` cannot be run, or does not fit `spec`."""

    batch_bytes = 0  # a row a run: with one thread more are no faster, and take more memory

    def __init__(self, graph: bytes, spec: ModelSpec) -> None:
        self.spec = spec
        library = imported("openvino", f"model {spec.name}", "openvino")
        try:
            core = library.Core()
            model = core.read_model(graph)
            inputs, outputs = (tuple(map(_tensor, ports)) for ports in (model.inputs, model.outputs))
            self._request: Any = core.compile_model(model, "CPU", _CONFIG).create_infer_request()
        except Exception as error:  # the library raises RuntimeError, and others
            raise ModelError(f"model `{spec.name}` cannot be loaded by openvino: {_reason(error)}", _INSTEAD) from error
        check_model_card(spec, inputs, outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch by name. Raises ModelError: inputs do not fit the model card, or the model
        fails.
        """
        check_inputs(self.spec, inputs)
        feed = {tensor.name: np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs}
        try:
            self._request.infer(feed, share_inputs=True)
            return {tensor.name: self._request.get_tensor(tensor.name).data.copy() for tensor in self.spec.outputs}
        except Exception as error:  # the library raises RuntimeError, and others
            raise ModelError(f"model `{self.spec.name}` failed: {_reason(error)}", _INSTEAD) from error

    def warm_up(self) -> None:
        """Run one row of zeros, where all inner dimensions are known."""
        zeros = zeros_of(self.spec, 1)
        if zeros is not None:
            self.run(zeros)

    def close(self) -> None:
        """Free the model and its memory."""
        self._request = None


def _tensor(port: Any) -> TensorSpec:
    """An input or output of a graph."""
    kind = port.get_element_type()
    dtype = "string" if kind.get_type_name() == "string" else np.dtype(kind.to_dtype()).name
    sizes = (
        size.get_length() if size.is_static else f"free{axis}" for axis, size in enumerate(port.get_partial_shape())
    )
    return TensorSpec(name=port.get_any_name(), dtype=dtype, shape=tuple(sizes))


def _reason(error: Exception) -> str:
    """OpenVINO's reason in one line: its last line that is no place in the source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '", "Summary"))]
    return " ".join((told or lines or [type(error).__name__])[:3])[:_MOST_CHARS]
