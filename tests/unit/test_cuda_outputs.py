"""What a session on a GPU copies to the host, where the host's memory is the GPU's: see tests/host_gpu.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.backends.onnxruntime import OnnxRuntime
from engines.heads.reductions import Selected
from engines.heads.view import View
from engines.inference import cuda, cuda_loading
from engines.inference.heads import Heads
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model
from engines.part import Array, Value
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.model import HeadSpec, ModelSpec, StateSpec, TensorSpec
from schemas.settings import Settings
from tests.convolutions import convolutions
from tests.host_gpu import COMPILER, HostGpu
from tests.onnx_graphs import FLOAT, UINT8, model_of, value
from tests.reducing import HostSession, check_equal, copied_back, detector

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
CARD = """
[[inputs]]
name = "images"
{head}
"""
DETECT = """
[[heads]]
kind = "detect"
decoder = "yolov8"
threshold = {threshold}
"""
VIEW = View((64, 64), (64, 64), (64, 64))
RECORD, COUNT = 4 + 4 * 6, 4  # bytes of a candidate: its place and six values; of their number


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu()


@pytest.fixture(autouse=True)
def _on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaSession", HostSession)


def opened(gpu: HostGpu, spec: ModelSpec, model: bytes) -> HostSession:
    """A session as a worker opens it."""
    device: Any = SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=False))
    session = OnnxRuntime(Settings()).open(model, spec, device)
    assert isinstance(session, HostSession)
    return session


def boxes(folder: Path, *thresholds: float) -> tuple[ModelSpec, bytes]:
    detector(folder / "boxes.onnx")
    heads = "".join(DETECT.format(threshold=threshold) for threshold in thresholds)
    (folder / "boxes.toml").write_text(CARD.format(head=heads))
    return load_model(folder / "boxes.onnx")


def pixels(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (rows, 64, 64, 3), np.uint8)


def answers(spec: ModelSpec, outputs: dict[str, Any], rows: int) -> dict[str, Value]:
    return Heads(spec)(outputs, [VIEW] * rows, rows)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.52, 1.0])
def test_candidates_alone_come_back(gpu: HostGpu, tmp_path: Path, threshold: float) -> None:
    spec, model = boxes(tmp_path, threshold)
    session, plain = opened(gpu, spec, model), HostSession(model, spec, HostGpu())  # type: ignore[arg-type]
    session.warm_up()
    plain.warm_up()
    for rows in (1, 5, 16):
        whole = plain.run({"images": pixels(rows)})
        with copied_back(gpu) as copied:
            found = session.run({"images": pixels(rows)})
        selected = found["output0"]
        assert isinstance(selected, Selected)
        near = int((whole["output0"][:, 4:].max(axis=1) > threshold * 0.98).sum())
        assert copied == [COUNT + near * RECORD]
        check_equal(answers(spec, found, rows), answers(spec, whole, rows))
    assert len(answers(spec, found, rows)["boxes"].values) == 0 if threshold == 1.0 else near > 0  # type: ignore[union-attr]


def test_two_batches_in_flight_do_not_disturb_each_other(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session = opened(gpu, spec, model)
    session.warm_up()
    expected = [answers(spec, session.run({"images": pixels(3, seed)}), 3) for seed in range(6)]
    started = [session.start({"images": pixels(3, seed)}) for seed in range(2)]
    found = []
    for seed in range(2, 8):
        found.append(answers(spec, started.pop(0)(), 3))
        started.append(session.start({"images": pixels(3, seed)}))
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other)


def test_nothing_is_allocated_for_the_batches_that_follow(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session = opened(gpu, spec, model)
    for _ in range(3):
        session.run({"images": pixels(8)})
    before = gpu.counters.allocations
    for seed in range(20):
        session.run({"images": pixels(8, seed)})
    assert gpu.counters.allocations == before


def test_an_output_that_two_heads_read_comes_back_whole(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5, 0.6)
    session = opened(gpu, spec, model)
    for _ in range(2):
        with copied_back(gpu) as copied:
            found = session.run({"images": pixels(2)})
    assert isinstance(found["output0"], np.ndarray)
    assert copied == [2 * 6 * 64 * 4]


def test_what_a_test_of_an_engine_compares_comes_back_whole(gpu: HostGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session: Any = HostSession(model, spec, gpu)  # type: ignore[arg-type]
    session.warm_up()
    wanted = OnnxRuntimeSession(model, spec).run({"images": pixels(2)})
    np.testing.assert_allclose(session.run({"images": pixels(2)})["output0"], wanted["output0"], rtol=1e-5)


def planes(kind: str, channels: int, **options: Any) -> tuple[ModelSpec, bytes]:
    """`pixels [N, H, W, 3]` uint8 -> `o [N, channels, H, W]`, sums of their colours, at any size."""
    weights = np.random.default_rng(3).normal(0, 0.01, (channels, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["o"]),
    ]
    model = model_of(
        nodes,
        [value("pixels", UINT8, ["N", "H", "W", 3])],
        [value("o", FLOAT, ["N", channels, "H", "W"])],
        (numpy_helper.from_array(weights, "w"),),
    )
    spec = ModelSpec(
        name="planes",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", "H", "W", 3)),),
        outputs=(TensorSpec(name="o", dtype="float32", shape=("N", channels, "H", "W")),),
        heads=(HeadSpec(kind=kind, options={"size": "model", **options}),),
        sha256="",
    )
    return spec, model


@pytest.mark.parametrize(
    ("kind", "channels", "options", "bytes_each"),
    [("segment", 21, {}, 1), ("image", 3, {"range": [-1.0, 1.0]}, 0), ("matte", 2, {"channel": 1}, 1)],
)
def test_a_picture_comes_back_as_bytes_at_any_size_or_stays(
    gpu: HostGpu, kind: str, channels: int, options: dict[str, Any], bytes_each: int
) -> None:
    spec, model = planes(kind, channels, **options)
    session = opened(gpu, spec, model)
    for height, width in ((20, 30), (33, 17), (20, 30)):
        for turn in range(2):
            given = np.random.default_rng(turn).integers(0, 256, (3, height, width, 3), np.uint8)
            whole = OnnxRuntimeSession(model, spec).run({"pixels": given})
            with copied_back(gpu) as copied:
                found = session.run({"pixels": given})
            view = [View((height, width), (height, width), (height, width))] * 3
            check_equal(Heads(spec)(found, view, 3), Heads(spec)(whole, view, 3))
        assert copied == [bytes_each * 3 * height * width]


def instances(threshold: float) -> tuple[ModelSpec, bytes]:
    """`pixels [N, 8, 8, 3]` uint8 -> `rows [N, 4 + 1 + 3, 64]`, whose score is the blue, and `masks [N, 3, 8, 8]`."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["t", "most"], ["masks"]),
        helper.make_node("Reshape", ["masks", "flat"], ["colours"]),
        helper.make_node("Gather", ["colours", "chosen"], ["rows"], axis=1),
    ]
    constants = {
        "most": np.array(255, np.float32),
        "flat": np.array([0, 3, 64]),
        "chosen": np.array([0, 1, 0, 1, 2, 0, 1, 2]),
    }
    outputs = {"rows": ("N", 8, 64), "masks": ("N", 3, 8, 8)}
    model = model_of(
        nodes,
        [value("pixels", UINT8, ["N", 8, 8, 3])],
        [value(name, FLOAT, list(shape)) for name, shape in outputs.items()],
        tuple(numpy_helper.from_array(each, name) for name, each in constants.items()),
    )
    spec = ModelSpec(
        name="instances",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", 8, 8, 3)),),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in outputs.items()),
        heads=(HeadSpec(kind="instances", options={"decoder": "yolov8", "threshold": threshold}),),
        sha256="",
    )
    return spec, model


def test_prototypes_come_back_for_pictures_with_boxes_alone(gpu: HostGpu) -> None:
    spec, model = instances(0.5)
    session = opened(gpu, spec, model)
    given = np.random.default_rng(0).integers(0, 120, (4, 8, 8, 3), np.uint8)
    given[2, 3, 4:6, 2] = 200, 220
    whole = OnnxRuntimeSession(model, spec).run({"pixels": given})
    session.warm_up()
    with copied_back(gpu) as copied:
        found = answers(spec, session.run({"pixels": given}), 4)
    check_equal(found, answers(spec, whole, 4))
    assert copied == [COUNT + 2 * (4 + 4 * 8) + 3 * 8 * 8 * 4]
    assert found["masks"].offsets.tolist() == [0, 0, 0, 2, 2]  # type: ignore[union-attr]


def above(shape: list[int | str]) -> tuple[ModelSpec, bytes]:
    """`x [1, 8]` uint8 -> `found [1, K, 6]`: a row for each value above 100: corners, the value as score, class 0."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
        helper.make_node("Greater", ["f", "least"], ["g"]),
        helper.make_node("Squeeze", ["g"], ["chosen"]),
        helper.make_node("Compress", ["f", "chosen"], ["c"], axis=1),
        helper.make_node("Unsqueeze", ["c", "two"], ["u"]),
        helper.make_node("Mul", ["u", "columns"], ["found"]),
    ]
    columns = np.array([0, 0, 1, 1, 1, 0], np.float32)
    constants = {"least": np.array(100, np.float32), "two": np.array([2]), "columns": columns}
    model = model_of(
        nodes,
        [value("x", UINT8, [1, 8])],
        [value("found", FLOAT, shape)],
        tuple(numpy_helper.from_array(each, name) for name, each in constants.items()),
    )
    spec = ModelSpec(
        name="above",
        inputs=(TensorSpec(name="x", dtype="uint8", shape=(1, 8)),),
        outputs=(TensorSpec(name="found", dtype="float32", shape=tuple(shape)),),
        heads=(HeadSpec(kind="detect", options={"decoder": "end2end"}),),
        sha256="",
    )
    return spec, model


def test_an_output_whose_size_depends_on_what_is_seen_comes_back_whole(gpu: HostGpu) -> None:
    spec, model = above([1, "K", 6])
    session = opened(gpu, spec, model)
    for row in ([0, 200, 0, 0, 0, 0, 0, 0], [200, 150, 220, 0, 0, 0, 0, 0], [0] * 8, [101] * 8, [200] + [0] * 7):
        given = {"x": np.array([row], np.uint8)}
        found = answers(spec, session.run(given), 1)
        assert isinstance(found["scores"], Ragged)
        assert sorted(found["scores"].values.tolist()) == sorted(each for each in row if each > 100)


def test_a_model_that_fails_fails_with_its_own_reason(gpu: HostGpu) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
        helper.make_node("Reshape", ["f", "shape"], ["found"]),
    ]
    shape = numpy_helper.from_array(np.array([1, 4, 2]), "shape")
    model = model_of(nodes, [value("x", UINT8, [1, "L"])], [value("found", FLOAT, [1, "K", "J"])], (shape,))
    spec = ModelSpec(
        name="folded",
        inputs=(TensorSpec(name="x", dtype="uint8", shape=(1, "L")),),
        outputs=(TensorSpec(name="found", dtype="float32", shape=(1, "K", "J")),),
        sha256="",
    )
    session = opened(gpu, spec, model)
    for _ in range(2):
        assert session.run({"x": np.zeros((1, 8), np.uint8)})["found"].shape == (1, 4, 2)
        with pytest.raises(ModelError, match=r"model `folded` failed: .*shape"):
            session.run({"x": np.zeros((1, 7), np.uint8)})


def test_a_model_exported_for_one_row_runs_one_row_at_a_time(gpu: HostGpu, tmp_path: Path) -> None:
    detector(tmp_path / "boxes.onnx", batch=1)
    (tmp_path / "boxes.toml").write_text(CARD.format(head=DETECT.format(threshold=0.5)))
    spec, model = load_model(tmp_path / "boxes.onnx")
    session = opened(gpu, spec, model)
    session.warm_up()
    whole = OnnxRuntimeSession(model, spec).run({"images": pixels(1)})
    check_equal(answers(spec, session.run({"images": pixels(1)}), 1), answers(spec, whole, 1))


def test_many_windows_of_a_model_with_a_state_run_at_once(gpu: HostGpu) -> None:
    """As Silero's for many windows: the state has one row, whatever the number of windows."""
    nodes = [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("ReduceSum", ["y"], ["n"], keepdims=1)]
    model = model_of(
        nodes,
        [value("x", FLOAT, ["N", 1]), value("h", FLOAT, [1, 1])],
        [value("y", FLOAT, ["N", 1]), value("n", FLOAT, [1, 1])],
    )
    inputs = (
        TensorSpec(name="x", dtype="float32", shape=("N", 1)),
        TensorSpec(name="h", dtype="float32", shape=(1, 1), state=StateSpec(output="n")),
    )
    outputs = tuple(
        TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in (("y", ("N", 1)), ("n", (1, 1)))
    )
    session = opened(gpu, ModelSpec(name="apart", inputs=inputs, outputs=outputs, sha256=""), model)
    session.warm_up()
    for rows in (1, 5, 1, 3):
        found = session.run({"x": np.ones((rows, 1), np.float32), "h": np.full((1, 1), 2, np.float32)})
        assert found["y"].tolist() == [[3.0]] * rows
        assert found["n"].tolist() == [[3.0 * rows]]


def test_channels_come_last_where_convolutions_are_flat_and_run_on_matrix_units() -> None:
    flat = convolutions(2)
    deep = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["n", 1, 3, 4, 5])],
        [value("y", FLOAT, ["n", 1, 3, 4, 5])],
        (numpy_helper.from_array(np.zeros((1, 1, 1, 1, 1), np.float32), "w"),),
    )
    half = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT16, ["n", 1, 4, 5])],
        [value("y", TensorProto.FLOAT16, ["n", 1, 4, 5])],
        (numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float16), "w"),),
    )
    scale = numpy_helper.from_array(np.zeros(1, np.float16), "s")
    normed = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("InstanceNormalization", ["c", "s", "s"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT16, ["n", 1, 4, 5])],
        [value("y", TensorProto.FLOAT16, ["n", 1, 4, 5])],
        (numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float16), "w"), scale),
    )
    found = {
        name: [cuda_loading.prefers_channels_last(graph, "m", tf32) for tf32 in (False, True)]
        for name, graph in {"flat": flat, "deep": deep, "half": half, "normed": normed}.items()
    }
    assert found == {"flat": [False, True], "deep": [False, False], "half": [True, True], "normed": [False, False]}
