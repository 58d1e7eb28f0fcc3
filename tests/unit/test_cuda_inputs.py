"""Inputs of models on a GPU that ONNX Runtime reads on the host, as nodes without a kernel for GPUs do."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from engines.inference.cuda_loading import on_host
from engines.inference.session import RowBatch, RowSelection
from engines.part import Array
from schemas.model import ModelSpec, TensorSpec
from tests.host_gpu import COMPILER, LateGpu, on_gpu
from tests.onnx_graphs import UINT8, model_of, value
from tests.reducing import HostRuntime, HostSession

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
SIZE = (4, 6)
SPEC = ModelSpec(
    name="brighter",
    description="one more",
    inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", *SIZE)),),
    outputs=(TensorSpec(name="more", dtype="uint8", shape=("N", *SIZE)),),
    sha256="",
)


def brighter() -> bytes:
    nodes = [helper.make_node("Add", ["pixels", "one"], ["more"])]
    one = numpy_helper.from_array(np.array(1, np.uint8), "one")
    return model_of(nodes, [value("pixels", UINT8, ["N", *SIZE])], [value("more", UINT8, ["N", *SIZE])], (one,))


class _Copying(HostSession):
    """One whose runtime copies inputs as they are bound, as IOBinding does with those that it reads on the host."""

    def _load(self, model: Any, tf32: bool, search: str, layout: str) -> Any:
        runtime = HostRuntime(model, self._gpu.calls)
        self._read_on_host, self._made_on_host = on_host(runtime)
        bound = runtime.io_binding
        runtime.io_binding = lambda: _copying(bound())  # type: ignore[method-assign]
        return runtime


def _copying(binding: Any) -> Any:
    def bind_input(name: str, device: str, number: int, dtype: Any, shape: tuple[int, ...], pointer: int) -> None:
        array = np.frombuffer(ctypes.string_at(pointer, int(np.prod(shape))), dtype).reshape(shape)
        binding.bound.bind_cpu_input(name, array)

    binding.bind_input = bind_input
    return binding


def rows(gpu: LateGpu, seed: int, count: int) -> tuple[Array, RowBatch]:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, *SIZE), np.uint8)
    there: Any = on_gpu(gpu, pixels)
    return pixels, RowBatch([RowSelection(there, None, 0, count)])


def test_an_input_that_is_copied_as_it_is_bound_has_its_rows_by_then() -> None:
    gpu = LateGpu()
    session = _Copying(brighter(), SPEC, gpu)  # type: ignore[arg-type]
    waiting = []
    for seed in range(6):
        pixels, given = rows(gpu, seed, 1 + seed % 3)
        waiting.append((pixels, session.start({"pixels": given})))
        if len(waiting) == session.in_flight:
            given_pixels, finish = waiting.pop(0)
            assert (np.asarray(finish()["more"]) == given_pixels + 1).all()


def test_inputs_count_as_read_on_the_host_unless_the_runtime_says_that_they_are_on_the_gpu() -> None:
    nodes, gpu, host = [SimpleNamespace(name="a"), SimpleNamespace(name="b")], "Cuda", "Cpu"

    def places(*names: str) -> Any:
        return lambda: [SimpleNamespace(name=name) for name in names]

    session = SimpleNamespace(get_inputs=lambda: nodes, get_outputs=lambda: nodes[:1])
    assert on_host(session) == ({"a", "b"}, {"a"})
    session.get_input_memory_infos, session.get_output_memory_infos = places(gpu, host), places(gpu)
    assert on_host(session) == ({"b"}, set())


def test_the_runtime_names_the_memory_of_each_input_and_output() -> None:
    assert on_host(HostRuntime(brighter(), None)) == ({"pixels"}, {"more"})
