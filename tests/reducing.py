"""The reductions of outputs on a GPU: a twin of the kernels in NumPy, and the kernels themselves on arrays of the host.

Also a session of `engines.inference.cuda` whose GPU is the host's: see tests/host_gpu.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from engines.cuda.arrays import rows_of
from engines.cuda.copies import copied
from engines.cuda.reductions import Output, Reducer
from engines.heads.planes import byte_values
from engines.heads.reductions import ByteValues, Reduction, Selected, Selection, Stays
from engines.inference.cuda import CudaSession
from engines.part import Array, Value
from engines.ragged import Ragged
from tests.host_gpu import HostGpu, on_gpu

Outputs = Mapping[str, Array]


def by_twin(reductions: Sequence[Reduction], outputs: Outputs) -> dict[str, Value]:
    """What NumPy leaves of outputs."""
    made: dict[str, Value] = dict(outputs)
    with np.errstate(all="ignore"):
        for reduction in reductions:
            if isinstance(reduction, Stays):
                continue
            if isinstance(reduction, Selection):
                made |= _selected(reduction, outputs)
            else:
                made[reduction.output] = _plane(reduction, outputs[reduction.output])
    return made


def _selected(selection: Selection, outputs: Outputs) -> dict[str, Value]:
    arrays = {name: outputs[name] for name in selection.outputs}
    if selection.columns_first:
        arrays = {name: array.swapaxes(1, 2) for name, array in arrays.items()}
    grid = next(iter(arrays.values())).shape[1:-1]
    tables = {n: array.reshape(len(array), int(np.prod(grid)), array.shape[-1]) for n, array in arrays.items()}
    scores = tables[selection.scores].astype(np.float32)
    if selection.softmax is not None:
        shifted = np.exp(scores - np.fmax.reduce(scores[..., selection.softmax], axis=-1, keepdims=True))
        scores = shifted / shifted[..., selection.softmax].sum(axis=-1, keepdims=True)
    chosen = scores[..., selection.columns]
    if selection.factor:
        name, column = selection.factor
        chosen = chosen * tables[name].astype(np.float32)[..., column, None]
    rows, places = np.nonzero((chosen > np.float32(selection.least)).any(axis=-1))
    offsets = np.searchsorted(rows, np.arange(len(scores) + 1)).astype(np.int64)
    return {name: Selected(table[rows, places], offsets, places, grid) for name, table in tables.items()}


def _plane(reduction: Any, values: Array) -> Any:
    if isinstance(reduction, ByteValues) and reduction.order:
        pictures = np.moveaxis(values, reduction.channels, 3) if values.ndim == 4 else values[..., None]
        inner = ByteValues(reduction.output, 3, reduction.black, reduction.white)
        chosen = pictures[..., list(reduction.order)]
        return on_gpu(HostGpu(), chosen if chosen.dtype == np.uint8 else _plane(inner, chosen))
    if isinstance(reduction, ByteValues):
        if reduction.channel is not None and values.ndim == 4:
            values = np.take(values, reduction.channel, axis=reduction.channels)
        black, white = np.float32(reduction.black), np.float32(reduction.white)
        return byte_values((values.astype(np.float32) - black) / (white - black))
    values = values[:, None] if values.ndim == 3 else np.moveaxis(values, reduction.channels, 1)
    if values.shape[1] == 1:
        return np.asarray(values[:, 0] > reduction.threshold, np.uint8)
    return np.asarray(values.argmax(axis=1), np.uint8)


def by_kernels(gpu: Any, reductions: Sequence[Reduction], outputs: Outputs) -> dict[str, Value]:
    """What the kernels of a GPU leave of outputs, and the whole outputs that no reduction reads."""
    gpu.enter()
    there = {}
    for name, array in outputs.items():
        there[name] = Output(array.dtype, array.shape, copied(gpu, array))
    stream = gpu.stream()
    reduced = Reducer(gpu, reductions, gpu.new_stream()).queue(there, stream)
    staged = {}
    for name, output in reduced.whole.items():
        staged[name] = np.empty(output.shape, output.dtype)
        if staged[name].nbytes:
            gpu.download(staged[name], output.block.pointer, stream)
    stream.synchronize()
    stays = {name: rows_of(gpu, each.block, each.shape, each.dtype) for name, each in reduced.staying.items()}
    return {**staged, **stays, **reduced.selected()}


def check_equal(found: Mapping[str, Value], expected: Mapping[str, Value]) -> None:
    """All values, bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        assert isinstance(other, Ragged) == isinstance(value, Ragged)
        for one, two in zip(_arrays(other), _arrays(value), strict=True):
            assert (one.dtype, one.shape) == (two.dtype, two.shape), name
            assert one.tobytes() == two.tobytes(), name


def _arrays(value: Value) -> list[Array]:
    if isinstance(value, Selected):
        assert isinstance(value.grid, tuple)
        return [value.values, value.offsets, value.places, np.array(value.grid)]
    return [value.values, value.offsets] if isinstance(value, Ragged) else [np.asarray(value)]


class HostSession(CudaSession):
    """A session on a `HostGpu`: ONNX Runtime's CPU computes where CUDA does elsewhere."""

    def _load(self, model: bytes, tf32: bool, search: str, layout: str) -> Any:
        return HostRuntime(model, self._gpu.calls)


class HostRuntime:
    """ONNX Runtime on the CPU, which takes the host's memory for a GPU's."""

    def __init__(self, model: bytes, calls: Any) -> None:
        self._calls = calls
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs
        self.get_input_memory_infos = self._session.get_input_memory_infos
        self.get_output_memory_infos = self._session.get_output_memory_infos

    def io_binding(self) -> Any:
        return _Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: "_Binding", options: Any) -> None:
        if self._calls.recording is not None:
            self._calls.recording.append(lambda: self._session.run_with_iobinding(binding.bound, options))
        else:
            self._session.run_with_iobinding(binding.bound, options)


class _Binding:
    def __init__(self, bound: Any) -> None:
        self.bound = bound
        self.copy_outputs_to_cpu = bound.copy_outputs_to_cpu

    def bind_input(self, name: str, device: str, *rest: Any) -> None:
        self.bound.bind_input(name, "cpu", *rest)

    def bind_output(self, name: str, device: str, *rest: Any) -> None:
        self.bound.bind_output(name, "cpu", *rest)


def detector(path: Path, batch: int | str = "N") -> None:
    """A graph laid out as YOLOv8's, of seeded random weights: `[N, 3, 64, 64]` -> `[N, 4 + 2, 64]`."""
    random = np.random.default_rng(7)
    weights = random.normal(0, 0.05, (6, 3, 8, 8)).astype(np.float32)
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8)), 0).reshape(1, 2, 64) * 8.0 + 4
    boxes = np.concatenate([cells, np.full((1, 2, 64), 12.0)], 1).astype(np.float32)
    constants = {"w": weights, "shape": np.array([0, 6, 64]), "cells": boxes, "four": np.array([4, 2])}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], strides=[8, 8]),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Split", ["r", "four"], ["b", "k"], axis=1),
        helper.make_node("Tanh", ["b"], ["t"]),
        helper.make_node("Add", ["t", "cells"], ["xywh"]),
        helper.make_node("Sigmoid", ["k"], ["s"]),
        helper.make_node("Concat", ["xywh", "s"], ["output0"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 6, 64])]
    graph = helper.make_graph(
        nodes, "boxes", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@contextmanager
def copied_back(gpu: Any) -> Iterator[list[int]]:
    """A list that has, at the end, how many bytes were copied to the host meanwhile."""
    before, counted = gpu.counters.from_gpu_bytes, list[int]()
    yield counted
    counted.append(gpu.counters.from_gpu_bytes - before)
