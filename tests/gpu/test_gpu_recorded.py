"""Batches that are recorded as CUDA graphs, on a GPU: the bits of the same session, whatever other threads do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from benchmarks.gpu_outputs import CARD as PICTURE_CARD
from benchmarks.gpu_outputs import DETECT as DETECTOR
from benchmarks.gpu_parts import decoded
from benchmarks.yolo import yolov8n
from engines.backends.onnxruntime import OnnxRuntime
from engines.cuda.gpu import CudaGpu
from engines.heads.view import View
from engines.inference.cuda import CudaSession
from engines.inference.heads import Heads
from engines.models.catalogue import load_model
from engines.profiling.apart import Task, tune_apart
from engines.profiling.batches import shapes_of
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_profile import ComputeOptions
from schemas.settings import Settings
from tests.clips import real_clip
from tests.onnx_graphs import FLOAT, model_of, value
from tests.reducing import check_equal
from tests.unit.test_cuda_outputs import above, answers, boxes, instances, pixels
from tests.unit.test_recorded import check_pictures_stay, plain_pictures

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
SIDE = 160
PLAIN, GRAPH = ComputeOptions(search="heuristic"), ComputeOptions(search="heuristic", graph=True)


def opened(
    gpu: CudaGpu, spec: ModelSpec, model: Any, options: ComputeOptions = GRAPH, encodes: bool = False
) -> CudaSession:
    """A session as a worker opens it; cuDNN times nothing, so that two sessions have the same algorithms."""
    device: Any = SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=encodes))
    session = OnnxRuntime(Settings()).open_with(model, spec, device, options)
    assert isinstance(session, CudaSession)
    return session


@pytest.fixture
def both(gpu: CudaGpu, tmp_path: Path) -> Iterator[tuple[CudaSession, CudaSession]]:
    """A small detector with a graph and without."""
    spec, model = boxes(tmp_path, 0.5)
    sessions = opened(gpu, spec, model), opened(gpu, spec, model, PLAIN)
    yield sessions
    for session in sessions:
        session.close()


def detector(folder: Path) -> tuple[ModelSpec, Any]:
    """YOLOv8n with random weights, whose joins of unequal parts ONNX Runtime describes in memory of the host."""
    path = folder / "yolov8.onnx"
    path.write_bytes(yolov8n(SIDE))
    path.with_suffix(".toml").write_text(PICTURE_CARD + DETECTOR)
    return load_model(path)


def frames(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("made", ["boxes", "instances"])
def test_selected_answers_have_the_bits_of_a_session_without_graphs(gpu: CudaGpu, tmp_path: Path, made: str) -> None:
    spec, model = boxes(tmp_path, 0.5) if made == "boxes" else instances(0.5)
    recorded, plain = opened(gpu, spec, model), opened(gpu, spec, model, PLAIN)
    shape = (64, 64, 3) if made == "boxes" else (8, 8, 3)
    for rows in (16, 1, 5, 16):
        given = {spec.inputs[0].name: np.random.default_rng(rows).integers(0, 256, (rows, *shape), np.uint8)}
        check_equal(answers(spec, recorded.start(given)(), rows), answers(spec, plain.start(given)(), rows))
    assert recorded._recordings
    recorded.close()
    plain.close()


def test_whole_outputs_of_a_real_network_have_the_same_bits_and_batches_overlap(gpu: CudaGpu, tmp_path: Path) -> None:
    spec, model = detector(tmp_path)
    recorded, plain = opened(gpu, spec, model), opened(gpu, spec, model, PLAIN)
    for session in (recorded, plain):
        session.reduce(())
    name, batches = spec.inputs[0].name, [frames(rows, rows) for rows in (16, 3, 16, 7, 16, 16)]
    expected = [plain.start({name: batch})() for batch in batches]
    started = [recorded.start({name: batch}) for batch in batches[:2]]
    for number, each in enumerate(expected):
        check_equal(started.pop(0)(), each)
        started += [recorded.start({name: batch}) for batch in batches[number + 2 : number + 3]]
    assert recorded._recordings
    recorded.close()
    plain.close()


def test_batches_that_follow_allocate_nothing(gpu: CudaGpu, both: tuple[CudaSession, CudaSession]) -> None:
    recorded, _ = both
    started = [recorded.start({"images": pixels(16, seed)}) for seed in range(2)]
    for seed in range(2, 34):
        before = gpu.counters.allocations
        started.pop(0)()
        started.append(recorded.start({"images": pixels(16, seed)}))
        assert seed < 8 or gpu.counters.allocations == before
    for finish in started:
        finish()


def test_pictures_that_stay_outlive_the_next_batches(gpu: CudaGpu) -> None:
    session = opened(gpu, *plain_pictures(), encodes=True)
    check_pictures_stay(session)
    session.close()


def test_other_sizes_end_the_graphs_and_are_answered(gpu: CudaGpu, tmp_path: Path) -> None:
    spec, model = detector(tmp_path)
    recorded, plain = opened(gpu, spec, model), opened(gpu, spec, model, PLAIN)
    name, waiting = spec.inputs[0].name, []
    for rows, room in ((16, 0), (4, 4), (16, 0), (20, 0), (16, 0)):
        given = {name: frames(rows, rows)}
        waiting.append((recorded.start(given, room), plain.start(given, room), rows))
        if len(waiting) == 2:
            one, other, count = waiting.pop(0)
            views = [View((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))] * count
            check_equal(Heads(spec)(one(), views, count), Heads(spec)(other(), views, count))
    assert not recorded._recordings
    recorded.close()
    plain.close()


def test_what_cannot_be_recorded_is_refused_and_the_gpu_goes_on(
    gpu: CudaGpu, both: tuple[CudaSession, CudaSession]
) -> None:
    with pytest.raises(ModelError):  # its output's size is copied to the host meanwhile
        opened(gpu, *above([1, "K", 6]))
    on_host = model_of(  # `Det` has no kernel of CUDA
        [helper.make_node("Det", ["x"], ["y"])], [value("x", FLOAT, ["N", 4, 4])], [value("y", FLOAT, ["N"])]
    )
    tensors = [
        TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in (("x", ("N", 4, 4)), ("y", ("N",)))
    ]
    spec = ModelSpec(name="det", inputs=(tensors[0],), outputs=(tensors[1],), sha256="")
    with pytest.raises(ModelError, match=r"model `det` cannot be loaded: .*graph"):
        opened(gpu, spec, on_host)
    recorded, plain = both
    given = {"images": pixels(16)}
    check_equal(answers(recorded.spec, recorded.start(given)(), 16), answers(plain.spec, plain.start(given)(), 16))


@contextmanager
def meanwhile(work: Callable[[], None], turns: list[int]) -> Iterator[None]:
    """A thread that works again and again; its first error is raised at the end."""
    over, began, failed = threading.Event(), threading.Event(), list[BaseException]()

    def again() -> None:
        try:
            while not over.is_set():
                work()
                turns[0] += 1
                began.set()
        except BaseException as error:
            failed.append(error)
            began.set()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        began.wait()
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def test_a_model_is_not_recorded_while_other_threads_decode_allocate_and_compute(
    gpu: CudaGpu, tmp_path: Path, both: tuple[CudaSession, CudaSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, model = detector(tmp_path)
    monkeypatch.setattr(gpu, "works_on_media", True)
    _, computing = both
    turns = [[0] for _ in range(3)]

    def decode() -> None:
        gpu.enter()
        decoded(gpu, real_clip("bikes"))  # by a decoder that is opened for it
        gpu.leave()

    def allocate() -> None:
        gpu.enter()
        blocks = [gpu.driver.mem_alloc(1 << 20), gpu.driver.pagelocked_empty(1 << 20, np.uint8)]
        gpu.driver.memcpy_htod(blocks[0], blocks[1])
        del blocks
        gpu.leave()

    def compute() -> None:
        for finish in [computing.start({"images": pixels(16, seed)}) for seed in range(2)]:
            finish()
        gpu.leave()

    with meanwhile(decode, turns[0]), meanwhile(allocate, turns[1]), meanwhile(compute, turns[2]):
        for _ in range(4):
            with pytest.raises(ModelError, match="works already"):
                opened(gpu, spec, model)
    assert all(count[0] > 1 for count in turns)


def test_a_recorded_model_is_computed_by_another_thread_than_that_which_loads_it(gpu: CudaGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    loaded: list[CudaSession] = []

    def load() -> None:
        loaded.append(opened(gpu, spec, model))
        gpu.leave()

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    [session] = loaded
    plain, given = opened(gpu, spec, model, PLAIN), {"images": pixels(16)}
    for _ in range(3):
        check_equal(answers(spec, session.start(given)(), 16), answers(spec, plain.start(given)(), 16))
    session.close()
    plain.close()


def test_trials_try_a_graph(tmp_path: Path) -> None:
    card, model = detector(tmp_path)
    settings = Settings.model_validate({"cache": str(tmp_path)})
    lines: list[str] = []
    tuned = tune_apart(Task(model, card, "cuda:0", settings, shapes_of(card, {}), 30.0), lines.append)
    [trial] = [trial for trial in tuned.tried if trial.options.graph and not trial.options.batch]
    assert trial.seconds, lines
    assert not trial.refused, lines
