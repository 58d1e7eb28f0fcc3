"""Runs ncnn on the CPU, one thread a session, in float32 whatever the processor could do.

ncnn has no ONNX: a graph is written as its layers for the sizes of its inputs, and before it serves, what ncnn answers
is compared with ONNX Runtime. A model whose card leaves sizes free is written for each size that arrives.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort

from engines.extras import imported
from engines.inference.ncnn_graph import NotForNcnn, Written
from engines.inference.ncnn_operations import write
from engines.inference.onnxruntime import LOADABLE, new_session, tensors_of
from engines.inference.reasons import one_line
from engines.inference.session import check_inputs, check_model_card, zeros_of
from engines.inference.weights import parsed_graph
from engines.part import Array
from engines.scratch import scratch_folder
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
_INSTEAD = 'run it by backend = "onnxruntime"'
_FAR = 1e-3  # of the largest value of an output: other algorithms differ by 1e-5, wrong layers by a tenth and more
_SIZES = 2  # that a session keeps a network for
# it would compute in half precision where the processor does, and decide on threads by itself
_OPTIONS = {
    "num_threads": 1,
    "use_vulkan_compute": False,
    **dict.fromkeys(("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"), False),
    **dict.fromkeys(("use_bf16_packed", "use_bf16_storage", "use_int8_inference"), False),
}


class NcnnSession:
    """A model on the CPU. Raises PluginMissing; ModelError if `graph` cannot be run by ncnn, or does not fit `spec`."""

    batch_bytes = 0  # a row a run: ncnn has no batches

    def __init__(self, graph: bytes, spec: ModelSpec) -> None:
        self.spec = spec
        self._library = imported("ncnn", f"model {spec.name}", "ncnn")
        self._graph = graph
        self._networks: dict[Shapes, _Network] = {}
        parsed = parsed_graph(graph, spec.name)
        try:
            tensors = tensors_of(_reference(parsed))
        except Exception as error:  # the runtime's own classes share no base below Exception
            raise ModelError(f"model `{spec.name}` cannot be loaded: {one_line(error)}", LOADABLE) from error
        check_model_card(spec, *tensors)
        if (zeros := zeros_of(spec, 1)) is not None:
            self._network(zeros)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch by name. Raises ModelError: inputs do not fit the model card, or the model
        fails.
        """
        check_inputs(self.spec, inputs)
        network = self._network(inputs)
        rows = [network.run({name: array[row] for name, array in inputs.items()}) for row in range(len(_first(inputs)))]
        return {tensor.name: _stacked([row[tensor.name] for row in rows]) for tensor in self.spec.outputs}

    def warm_up(self) -> None:
        """Run one row of zeros, where all inner dimensions are known."""
        zeros = zeros_of(self.spec, 1)
        if zeros is not None:
            self.run(zeros)

    def close(self) -> None:
        """Free the model and its memory."""
        self._networks.clear()

    def _network(self, inputs: Mapping[str, Array]) -> "_Network":
        """The network for rows of these sizes, made and tested where it is not there."""
        sizes: Shapes = tuple(inputs[tensor.name].shape[1:] for tensor in self.spec.inputs)
        if sizes not in self._networks:
            made = self._made(sizes)
            while len(self._networks) >= _SIZES:
                del self._networks[next(iter(self._networks))]
            self._networks[sizes] = made
        return self._networks[sizes]

    def _made(self, sizes: Shapes) -> "_Network":
        """A network for these sizes that answers as ONNX Runtime does. Raises ModelError."""
        name, model = self.spec.name, _with_sizes(parsed_graph(self._graph, self.spec.name), self.spec, sizes)
        random = np.random.default_rng(0)
        row = {
            tensor.name: _drawn(random, tensor, shape) for tensor, shape in zip(self.spec.inputs, sizes, strict=True)
        }
        with scratch_folder("ncnn") as folder:
            try:
                reference = _reference(model, folder / "simple.onnx")
                outputs = [tensor.name for tensor in self.spec.outputs]
                expected = reference.run(outputs, {given: array[None] for given, array in row.items()})
            except Exception as error:  # the runtime's own classes share no base below Exception
                raise ModelError(f"model `{name}` failed on rows of {_described(sizes)}: {one_line(error)}") from error
            try:
                written = write(onnx.load(str(folder / "simple.onnx")))
            except NotForNcnn as error:
                raise ModelError(f"model `{name}` cannot be run by ncnn: {error}", _INSTEAD) from error
            network = _Network(name, self._library, written, folder)
        found = network.run(row)
        far = max(_distance(found[made], array[0]) for made, array in zip(outputs, expected, strict=True))
        if not far <= _FAR:  # what is no number is far too
            what = f"model `{name}` does not answer by ncnn as by ONNX Runtime: outputs differ by {far:.2g}"
            raise ModelError(f"{what} of their largest value, {_FAR:g} is allowed", _INSTEAD)
        return network


class _Network:
    """A network that ncnn has loaded."""

    def __init__(self, name: str, library: Any, written: Written, folder: Path) -> None:
        self._name, self._library, self._written = name, library, written
        self._net = library.Net()
        for option, value in _OPTIONS.items():
            if hasattr(self._net.opt, option):
                setattr(self._net.opt, option, value)
        (folder / "param").write_text(written.param)
        (folder / "bin").write_bytes(written.weights)
        if self._net.load_param(str(folder / "param")) or self._net.load_model(str(folder / "bin")):
            raise ModelError(f"model `{name}` cannot be loaded by ncnn", _INSTEAD)

    def run(self, row: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one row, without a batch. Raises ModelError."""
        extractor = self._net.create_extractor()
        for name, (blob, shape) in self._written.inputs.items():
            array = np.ascontiguousarray(row[name], np.float32).reshape(shape)
            # a copy in memory of its own: it computes in place, and reads some bytes beyond the end
            extractor.input(blob, self._library.Mat(array).clone())
        found = {}
        for name, (blob, shape) in self._written.outputs.items():
            failed, mat = extractor.extract(blob)
            if failed:
                raise ModelError(f"model `{self._name}` failed in ncnn, error {failed}", _INSTEAD)
            found[name] = np.asarray(mat).reshape(shape)  # its memory lives as long as the array
        return found


def _reference(model: Any, simple: Path | None = None) -> Any:
    """A session of ONNX Runtime, which writes the graph as it simplifies it: constants computed, norms folded.

    Raises ONNX Runtime's errors.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # it runs once
    options.log_severity_level = 4  # errors come as exceptions
    if simple is not None:
        options.optimized_model_filepath = str(simple)
    return new_session(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _distance(array: Array, expected: Array) -> float:
    """The largest difference, of the largest value."""
    return float(np.abs(array - expected).max()) / max(1e-9, float(np.abs(expected).max()))


def _described(sizes: Shapes) -> str:
    return " and ".join(str(list(shape)) for shape in sizes)


def _stacked(rows: Sequence[Array]) -> Array:
    """Rows as one array; a single large one is not copied."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def _first(inputs: Mapping[str, Array]) -> Array:
    return next(iter(inputs.values()))


def _with_sizes(model: Any, spec: ModelSpec, sizes: Shapes) -> Any:
    """A graph for one row of these sizes, with the outputs of its card; its other declarations are left out."""
    graph, given = model.graph, dict(zip((tensor.name for tensor in spec.inputs), sizes, strict=True))
    for value in graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, *given.get(value.name, ())), strict=False):
            dim.dim_value = size
    wanted = {tensor.name for tensor in spec.outputs}
    kept = [value for value in graph.output if value.name in wanted]
    for value in kept:
        value.type.tensor_type.ClearField("shape")
    del graph.output[:], graph.value_info[:]
    graph.output.extend(kept)
    return model


def _drawn(random: np.random.Generator, tensor: TensorSpec, shape: tuple[int, ...]) -> Array:
    """A row of random numbers: bytes, or values in the card's range."""
    if tensor.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    low, high = tensor.range or (-1.0, 1.0)
    return (low + random.random(shape) * (high - low)).astype(tensor.dtype)
