"""Batches that are recorded as CUDA graphs, where the host's memory is the GPU's: see tests/host_gpu.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from engines.backends.onnxruntime import OnnxRuntime
from engines.cuda.arrays import GpuRows
from engines.device import Host
from engines.inference import cuda
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.plan import plan_pipeline
from pipelines.registry import builtin_pipeline
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_profile import ComputeOptions
from schemas.settings import Settings
from tests.host_gpu import COMPILER, HostGpu
from tests.onnx_graphs import FLOAT, UINT8, model_of, value
from tests.reducing import HostSession, check_equal
from tests.unit.test_cuda_outputs import above, answers, boxes, instances, pixels, planes
from workers import sessions
from workers.stages import LoadedPipeline

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
GRAPH = ComputeOptions(graph=True)
CARD, _ = builtin_model("fingerprint")


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu()


@pytest.fixture(autouse=True)
def _on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaSession", HostSession)


def device(gpu: HostGpu, encodes: bool = False) -> Any:
    return SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=encodes), name="cuda:0", leave=lambda: None)


def opened(
    gpu: HostGpu, spec: ModelSpec, model: bytes, options: ComputeOptions = GRAPH, encodes: bool = False
) -> HostSession:
    """A session as a worker opens it."""
    session = OnnxRuntime(Settings()).open_with(model, spec, device(gpu, encodes), options)
    assert isinstance(session, HostSession)
    return session


@pytest.mark.parametrize("made", ["boxes", "instances"])
def test_answers_have_the_bits_of_a_session_without_graphs(gpu: HostGpu, tmp_path: Path, made: str) -> None:
    spec, model = boxes(tmp_path, 0.5) if made == "boxes" else instances(0.5)
    shape = (64, 64, 3) if made == "boxes" else (8, 8, 3)
    recorded, plain = opened(gpu, spec, model), opened(HostGpu(), spec, model, ComputeOptions())
    name, plain_rows = spec.inputs[0].name, np.random.default_rng(0).integers(0, 256, (16, *shape), np.uint8)
    launched = gpu.calls.launched
    for rows in (16, 1, 5, 16):
        given = {name: plain_rows[:rows]}
        check_equal(answers(spec, recorded.start(given)(), rows), answers(spec, plain.start(given)(), rows))
        check_equal(answers(spec, recorded.run(given), rows), answers(spec, plain.run(given), rows))
    assert gpu.calls.launched - launched == 8


def test_whole_outputs_have_the_bits_of_a_session_without_graphs(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path)
    recorded, plain = opened(gpu, spec, model), opened(HostGpu(), spec, model, ComputeOptions())
    for rows in (16, 3):
        given = {"images": pixels(rows, rows)}
        check_equal(recorded.start(given)(), plain.start(given)())


def test_two_batches_in_flight_have_a_graph_each_and_allocate_nothing(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session, plain = opened(gpu, spec, model), opened(HostGpu(), spec, model, ComputeOptions())
    expected = [answers(spec, plain.start({"images": pixels(16, seed)})(), 16) for seed in range(6)]
    started = [session.start({"images": pixels(16, seed)}) for seed in range(2)]
    for seed in range(2, 18):
        before = gpu.counters.allocations
        check_equal(answers(spec, started.pop(0)(), 16), expected[(seed - 2) % 6])
        started.append(session.start({"images": pixels(16, seed % 6)}))
        assert seed < 6 or gpu.counters.allocations == before
    assert len(gpu.calls.graphs) == session.in_flight


def plain_pictures() -> tuple[ModelSpec, bytes]:
    """`pixels [N, 4, 4]` uint8 -> `twice [N, 4, 4]` uint8."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("Add", ["f", "f"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["twice"], to=UINT8),
    ]
    model = model_of(nodes, [value("pixels", UINT8, ["N", 4, 4])], [value("twice", UINT8, ["N", 4, 4])])
    tensors = {name: TensorSpec(name=name, dtype="uint8", shape=("N", 4, 4)) for name in ("pixels", "twice")}
    return ModelSpec(name="twice", inputs=(tensors["pixels"],), outputs=(tensors["twice"],), sha256=""), model


def check_pictures_stay(session: Any) -> None:
    """A session of `plain_pictures` whose pictures stay on the GPU: they are the same after the next batches."""
    given = [np.random.default_rng(seed).integers(0, 120, (16, 4, 4), np.uint8) for seed in range(5)]
    found = [session.start({"pixels": each})()["twice"] for each in given]
    for each, rows in zip(given, found, strict=True):
        assert isinstance(rows, GpuRows)
        np.testing.assert_array_equal(rows.on_host(), 2 * each)


def test_pictures_that_stay_outlive_the_next_batches(gpu: HostGpu) -> None:
    check_pictures_stay(opened(gpu, *plain_pictures(), encodes=True))


def test_after_a_batch_of_another_size_there_are_no_graphs(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session, plain = opened(gpu, spec, model), opened(HostGpu(), spec, model, ComputeOptions())
    full, some = {"images": pixels(16)}, {"images": pixels(3, 1)}
    in_flight = session.start(full)
    launched = gpu.calls.launched
    smaller = session.start(some, 4)
    check_equal(answers(spec, in_flight(), 16), answers(spec, plain.start(full)(), 16))
    check_equal(answers(spec, smaller(), 3), answers(spec, plain.start(some, 4)(), 3))
    check_equal(answers(spec, session.start(full)(), 16), answers(spec, plain.start(full)(), 16))
    assert (gpu.calls.launched, gpu.calls.graphs) == (launched, {})


def test_a_larger_batch_than_the_recorded_one_is_answered(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session, plain = opened(gpu, spec, model), opened(HostGpu(), spec, model, ComputeOptions())
    for rows in (16, 20, 16):
        given = {"images": pixels(rows, rows)}
        check_equal(answers(spec, session.run(given), rows), answers(spec, plain.run(given), rows))


def test_graphs_end_with_their_session(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    opened(gpu, spec, model).close()
    assert gpu.calls.graphs == {}


def test_what_cannot_be_recorded_is_refused_in_words(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    gpu.calls.spoilt = True
    with pytest.raises(ModelError, match="`boxes` cannot be recorded as a CUDA graph: CUDA error 901"):
        opened(gpu, spec, model)
    assert gpu.calls.recording is None
    with pytest.raises(ModelError, match=r"the shapes of its inputs or outputs are not fixed"):
        opened(HostGpu(), *planes("segment", 3))
    with pytest.raises(ModelError, match=r"`above` cannot be recorded as a CUDA graph: .*shape"):
        opened(HostGpu(), *above([1, "K", 6]))


def test_no_graph_is_left_where_the_second_one_fails(
    gpu: HostGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, model = boxes(tmp_path, 0.5)
    begin = gpu.calls.begin_capture

    def begin_once(stream: int) -> None:
        begin(stream)
        gpu.calls.spoilt = bool(gpu.calls.graphs)

    monkeypatch.setattr(gpu.calls, "begin_capture", begin_once)
    with pytest.raises(ModelError, match="CUDA error 901"):
        opened(gpu, spec, model)
    assert gpu.calls.graphs == {}


def test_a_graph_that_does_not_write_its_outputs_is_refused(
    gpu: HostGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, model = boxes(tmp_path, 0.5)
    monkeypatch.setattr(gpu.calls, "launch_graph", lambda graph, stream: None)
    with pytest.raises(ModelError, match="its answers would have other bits"):
        opened(gpu, spec, model)
    assert gpu.calls.graphs == {}


def test_a_worker_computes_without_a_graph_what_it_cannot_record(
    gpu: HostGpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, model = boxes(tmp_path, 0.5)
    gpu.calls.spoilt = True
    session: Any = sessions._warmed(model, spec, OnnxRuntime(Settings()), device(gpu), None, GRAPH)
    given = {"images": pixels(5)}
    whole = OnnxRuntimeSession(model, spec).run(given)
    check_equal(answers(spec, session.start(given)(), 5), answers(spec, whole, 5))
    [line] = [each for each in caplog.messages if "CUDA graph" in each]
    assert line.startswith("model boxes is computed without a CUDA graph on cuda:0: model `boxes` cannot be recorded")


def test_no_graph_is_blamed_for_a_model_that_cannot_be_opened_at_all(
    gpu: HostGpu, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_with(*_: object) -> None:
        raise ModelError("model `boxes` cannot be loaded")

    spec, model = boxes(tmp_path, 0.5)
    monkeypatch.setattr(OnnxRuntime, "open_with", open_with)
    with pytest.raises(ModelError, match="cannot be loaded"):
        sessions._warmed(model, spec, OnnxRuntime(Settings()), device(gpu), None, GRAPH)
    assert not [each for each in caplog.messages if "CUDA graph" in each]


def test_nothing_is_recorded_once_the_process_works(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    before, plan = opened(gpu, spec, model), plan_pipeline(builtin_pipeline("fingerprint"), {CARD.name: CARD})
    host: Any = Host(Settings())
    host.gpu = gpu
    pipeline = LoadedPipeline(plan, lambda stage: True, {"infer": SimpleNamespace(spec=CARD)}, host)  # type: ignore[dict-item]
    assert pipeline.operate(plan.spec.operators[-1], [], lambda: None) == []
    with pytest.raises(ModelError, match="works already"):
        opened(gpu, spec, model)
    given, plain = {"images": pixels(16)}, opened(HostGpu(), spec, model, ComputeOptions())
    assert before._recordings
    check_equal(answers(spec, before.start(given)(), 16), answers(spec, plain.start(given)(), 16))


def test_a_graph_is_worth_trying_for_fixed_sizes_on_a_gpu(gpu: HostGpu, tmp_path: Path) -> None:
    backend = OnnxRuntime(Settings())
    on_gpu, on_host = device(gpu), SimpleNamespace(gpu=None)
    tried = [each for changes in backend.worth_trying(b"", instances(0.5)[0], on_gpu) for each in changes]
    assert tried.count({"graph": True}) == 1
    assert tried.index({"search": "exhaustive"}) < tried.index({"graph": True}) < tried.index({"batch": 32})
    for spec, where in ((planes("segment", 3)[0], on_gpu), (instances(0.5)[0], on_host)):
        assert all("graph" not in each for changes in backend.worth_trying(b"", spec, where) for each in changes)
