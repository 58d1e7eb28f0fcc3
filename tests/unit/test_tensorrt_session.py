"""The TensorRT session's own doing, over a stand-in for library and GPU: host memory, and ONNX Runtime behind it.

It shows the order of calls, shapes, dtypes and errors. That a plan runs on a GPU it cannot show.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.backends.tensorrt import TensorRtRtx
from engines.cuda.memory import Counters, Pool
from engines.inference import tensorrt as module
from engines.inference.bindings import DTYPES
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.plan import PlanSession
from engines.inference.session import Overlapping
from engines.part import Array
from schemas.errors import DeviceLost, ModelError
from schemas.settings import Settings
from tests.nets import kept_engine, resnet
from workers.engines import ready

NAMES = {numpy: name for name, numpy in DTYPES.items()}


class Context:
    """An execution context whose network is the resnet of the tests, its answers times `factor`."""

    def __init__(self, factor: float, works: bool, most: int) -> None:
        self.session = OnnxRuntimeSession(*reversed(resnet()))
        self.factor, self.works, self.most = factor, works, most
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.pointers: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= self.most

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["pixels"] if name == "pixels" else (self.shapes["pixels"][0], 10)

    def set_tensor_address(self, name: str, pointer: int) -> None:
        self.pointers[name] = pointer

    def execute_async_v3(self, handle: int) -> bool:
        if self.works:
            pixels = _at(self.pointers["pixels"], self.shapes["pixels"], np.uint8)
            scores = _at(self.pointers["scores"], self.get_tensor_shape("scores"), np.float32)
            scores[...] = self.session.run({"pixels": pixels})["scores"] * np.float32(self.factor)
        return self.works


def _at(pointer: int, shape: tuple[int, ...], dtype: Any) -> Array:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(pointer), dtype).reshape(shape)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the stand-in in the library's place."""

    def install(factor: float = 1.0, works: bool = True, loads: bool = True) -> None:
        dtypes = {"pixels": "uint8", "scores": "float32"}
        engine = SimpleNamespace(
            create_execution_context=lambda: Context(factor, works, most=32),
            get_tensor_dtype=lambda name: SimpleNamespace(name=NAMES[dtypes[name]]),
        )
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if loads else None)
        library = SimpleNamespace(Runtime=lambda logger: runtime)
        monkeypatch.setattr(module, "load", lambda backend: library)
        monkeypatch.setattr(module, "collecting_logger", lambda trt, output: output.append("version mismatch"))

    return install


class Gpu:
    """A GPU whose memory is the host's, and whose streams run everything at once."""

    number = 0

    def __init__(self) -> None:
        self.counters = Counters()
        self.memory, self.pinned = Pool(_host_memory, self.counters), Pool(_host_memory, self.counters)
        self.kernels = self

    def enter(self) -> None: ...

    def guarded(self) -> AbstractContextManager[None]:
        return nullcontext()

    def new_stream(self) -> SimpleNamespace:
        return SimpleNamespace(handle=7, wait_for_event=lambda event: None, synchronize=lambda: None)

    def event(self) -> SimpleNamespace:
        return SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)

    def upload(self, pointer: int, host: Array, stream: Any) -> None:
        ctypes.memmove(pointer, host.ctypes.data, host.nbytes)

    def download(self, host: Array, pointer: int, stream: Any) -> None:
        ctypes.memmove(host.ctypes.data, pointer, host.nbytes)

    def launch(self, name: str, grid: Any, block: Any, stream: Any, given: Any) -> None:
        assert name == "gather"
        for row, source in enumerate(_at(int(given["rows"]), (int(given["count"]),), np.uint64)):
            nbytes = int(given["row_bytes"])
            ctypes.memmove(int(given["out"]) + row * nbytes, int(source), nbytes)


def _host_memory(nbytes: int) -> tuple[int, Array]:
    block = np.zeros(nbytes, np.uint8)
    return block.ctypes.data, block


def test_on_a_gpu_two_batches_are_in_flight_and_nothing_is_allocated_twice(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    machine()
    store, engine = kept_engine(tmp_path)
    gpu = Gpu()
    session = PlanSession(store.load(engine.key)[1], resnet()[0], engine, gpu)  # type: ignore[arg-type]
    assert isinstance(session, Overlapping)
    session.warm_up()
    pixels = np.random.default_rng(1).integers(0, 255, (32, 64, 64, 3), np.uint8)
    expected = OnnxRuntimeSession(*reversed(resnet())).run({"pixels": pixels})["scores"]
    allocations = []
    for _ in range(3):
        started = [session.start({"pixels": pixels[rows]}) for rows in (slice(0, 20), slice(20, 32))]
        answers = np.concatenate([finish()["scores"] for finish in started])
        np.testing.assert_allclose(answers, expected, rtol=1e-4)
        allocations.append(gpu.counters.allocations)
    assert allocations[1] == allocations[2]
    with pytest.raises(ModelError, match="outside of its engine's profile"):
        session.run({"pixels": np.concatenate([pixels, pixels])})
    session.close()


def opened(folder: Path) -> PlanSession:
    store, engine = kept_engine(folder)
    return PlanSession(store.load(engine.key)[1], resnet()[0], engine, Gpu())  # type: ignore[arg-type]


def test_it_answers_batches_of_any_size_in_its_profile(machine: Callable[..., None], tmp_path: Path) -> None:
    machine()
    session = opened(tmp_path)
    assert session.batch_bytes == 32 * 64 * 64 * 3
    session.warm_up()
    pixels = np.random.default_rng(1).integers(0, 255, (32, 64, 64, 3), np.uint8)
    expected = OnnxRuntimeSession(*reversed(resnet())).run({"pixels": pixels})["scores"]
    for rows in (1, 5, 32):
        np.testing.assert_allclose(session.run({"pixels": pixels[:rows]})["scores"], expected[:rows], rtol=1e-4)
    with pytest.raises(ModelError, match="outside of its engine's profile: build it with a wider --dim"):
        session.run({"pixels": np.concatenate([pixels, pixels])})
    with pytest.raises(ModelError, match=r"expected uint8 \[N, 64, 64, 3\], found float32"):
        session.run({"pixels": pixels.astype(np.float32)})
    session.close()
    session.close()


def test_a_plan_that_cannot_be_loaded_is_reported(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(loads=False)
    with pytest.raises(ModelError, match="cannot be loaded: version mismatch: build it for this GPU"):
        opened(tmp_path)


def test_a_run_that_fails_is_the_gpus_loss(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(works=False)
    with pytest.raises(DeviceLost, match="failed on the GPU"):
        opened(tmp_path).warm_up()


@pytest.mark.parametrize(("factor", "served"), [(1.001, True), (1.05, False), (float("nan"), False)])
def test_only_an_engine_that_answers_as_the_cpu_does_is_served(
    machine: Callable[..., None], tmp_path: Path, factor: float, served: bool
) -> None:
    machine(factor)
    spec, model = resnet()
    store, engine = kept_engine(tmp_path)
    found, backend, device = ready(store, engine, model), TensorRtRtx(Settings()), SimpleNamespace(gpu=Gpu())
    if served:
        assert backend.open(model, spec, device, found).spec == spec  # type: ignore[arg-type]
    else:
        with pytest.raises(ModelError, match="does not answer as ONNX Runtime does on the CPU"):
            backend.open(model, spec, device, found)  # type: ignore[arg-type]
