"""Sessions and batching, on real ONNX Runtime and small real graphs."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure import rss_bytes
from engines.inference import onnxruntime
from engines.inference.batch import infer_parts
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.reasons import one_line
from engines.models.catalogue import builtin_model, load_model
from engines.models.graph import FLOAT, IR_VERSION, OPSET, Graph
from engines.part import Array, Part
from schemas.errors import ModelError, RigflowError
from schemas.messages import JobRef, Key, MediaInfo, PartMeta
from schemas.pipeline import ModelSpec, OperatorStage, TensorSpec


def part_of(number: int = 0, /, **arrays: Array) -> Part:
    job = JobRef(id=f"job{number}", pipeline="p", revision="r")
    return Part(PartMeta(key=Key(job=job, segment=number), media=MediaInfo(kind="video")), arrays)


def tensor(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def card(inputs: list[TensorSpec], outputs: list[TensorSpec], name: str = "tiny") -> ModelSpec:
    return ModelSpec(name=name, inputs=tuple(inputs), outputs=tuple(outputs), sha256="")


def session_of(graph: Graph, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> OnnxRuntimeSession:
    spec, body = graph.finish(card(inputs, outputs))
    return OnnxRuntimeSession(body, spec)


def sums() -> OnnxRuntimeSession:
    """`pixels [W, T, 2, 2]` -> `sum [W, T]`: what each frame of each window adds up to."""
    graph = Graph()
    graph.op("ReduceSum", graph.op("Cast", "pixels", to=FLOAT), np.array([2, 3]), keepdims=0, result="sum")
    return session_of(graph, [tensor("pixels", "uint8", "W", "T", 2, 2)], [tensor("sum", "float32", "W", "T")])


def wider() -> OnnxRuntimeSession:
    """`x [N, H, W]` -> `y [N, H, 2W]`, the array beside itself."""
    graph = Graph()
    graph.op("Concat", "x", "x", axis=2, result="y")
    return session_of(graph, [tensor("x", "uint8", "N", "H", "W")], [tensor("y", "uint8", "N", "H", "W2")])


def chooser() -> OnnxRuntimeSession:
    """`choice [N]` -> `chosen [N]` out of ten numbers; fails on a choice that is not among them."""
    graph = Graph()
    graph.op("Gather", np.arange(10, 20, dtype=np.float32), "choice", result="chosen")
    return session_of(graph, [tensor("choice", "int64", "N")], [tensor("chosen", "float32", "N")])


class Counting:
    """A real session that remembers how many rows each run had."""

    def __init__(self, session: OnnxRuntimeSession, batch_bytes: int = 1 << 20) -> None:
        self.inner = session
        self.spec = session.spec
        self.batch_bytes = batch_bytes
        self.rows: list[int] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.rows.append(len(next(iter(inputs.values()))))
        return self.inner.run(inputs)

    def warm_up(self) -> None:
        self.inner.warm_up()

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def stage() -> OperatorStage:
    return OperatorStage(kind="infer", name="infer", model="tiny", max_batch=4)


def good(outcome: Part | RigflowError) -> Part:
    assert isinstance(outcome, Part), outcome
    return outcome


def windows(rng: np.random.Generator, number: int, count: int, frames: int = 6, length: int = 3) -> Part:
    return part_of(
        number,
        pixels=rng.integers(0, 256, (frames, 2, 2), dtype=np.uint8),
        index=rng.integers(0, frames, (count, length)).astype(np.int32),
    )


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6), max_batch=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_each_part_gets_the_answers_of_its_own_windows(counts: list[int], max_batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [windows(rng, number, count) for number, count in enumerate(counts)]
    session = Counting(sums())
    outcomes = infer_parts(OperatorStage(kind="infer", name="infer", model="tiny", max_batch=max_batch), session, parts)
    for part, outcome in zip(parts, outcomes, strict=True):
        answer = good(outcome)
        expected = part.arrays["pixels"].astype(float).sum((1, 2))[part.arrays["index"]]
        assert answer.meta == part.meta
        assert set(answer.arrays) == {"sum"}
        assert answer.arrays["sum"].dtype == np.float32
        assert answer.arrays["sum"].tolist() == expected.tolist()
    total = sum(counts)
    filled = [rows for rows in session.rows if rows]
    assert max(filled, default=0) <= max_batch
    assert len(filled) == -(-total // max_batch)


def test_gives_what_the_model_makes_and_nothing_else(stage: OperatorStage) -> None:
    part = windows(np.random.default_rng(0), 0, 3)
    arrays = good(infer_parts(stage, sums(), [part])[0]).arrays
    assert set(arrays) == {"sum"}, "the plan of the pipeline adds what the stage keeps"


def test_windows_of_one_frame_give_a_row_a_window_although_frames_repeat(stage: OperatorStage) -> None:
    pixels = np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2)
    part = part_of(pixels=pixels, index=np.array([[0], [1], [1]], np.int32))
    reading = stage.model_copy(update={"reads": {"x": "pixels"}})
    y = good(infer_parts(reading, wider(), [part])[0]).arrays["y"]
    np.testing.assert_array_equal(y, np.concatenate([pixels, pixels], 2)[[0, 1, 1]])


def test_frames_of_longer_windows_are_answered_one_by_one_by_a_model_of_frames(stage: OperatorStage) -> None:
    pixels = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    part = part_of(pixels=pixels, index=np.array([[0, 1], [1, 2]], np.int32))
    reading = stage.model_copy(update={"reads": {"x": "pixels"}})
    y = good(infer_parts(reading, wider(), [part])[0]).arrays["y"]
    np.testing.assert_array_equal(y, np.concatenate([pixels, pixels], 2))


def test_each_replaces_every_listed_array_that_is_there(stage: OperatorStage) -> None:
    rng = np.random.default_rng(0)
    over = stage.model_copy(update={"each": ("plane0", "plane1", "plane3")})
    parts = [
        part_of(
            number,
            plane0=rng.integers(0, 256, (frames, 4, 6), dtype=np.uint8),
            plane1=rng.integers(0, 256, (frames, 2, 3), dtype=np.uint8),
            index=np.zeros((frames, 1), np.int32),
        )
        for number, frames in enumerate((3, 0, 2))
    ]
    session = Counting(wider())
    outcomes = infer_parts(over, session, parts)
    for part, outcome in zip(parts, outcomes, strict=True):
        arrays = good(outcome).arrays
        assert set(arrays) == {"plane0", "plane1"}
        for name in ("plane0", "plane1"):
            plane = part.arrays[name]
            assert arrays[name].tolist() == np.concatenate([plane, plane], 2).tolist()
    assert sorted(session.rows) == [1, 1, 4, 4]  # planes of two sizes never share a batch


def test_one_bad_part_does_not_hurt_its_neighbours(stage: OperatorStage) -> None:
    parts = [
        part_of(0, choice=np.array([1, 2])),
        part_of(1, choice=np.array([3, 99])),
        part_of(2, other=np.array([1])),
        part_of(3, choice=np.array([1.0])),
        part_of(4, choice=np.array([5, 6, 7, 8, 9])),
    ]
    outcomes = infer_parts(stage, chooser(), parts)
    np.testing.assert_array_equal(good(outcomes[0]).arrays["chosen"], [11, 12])
    np.testing.assert_array_equal(good(outcomes[4]).arrays["chosen"], [15, 16, 17, 18, 19])
    for bad, word in (
        (1, "out of"),
        (2, "stage `infer` wants array `choice`"),
        (3, "expected int64 [N], found float64"),
    ):
        assert isinstance(outcomes[bad], ModelError)
        assert word in str(outcomes[bad])
        assert "\n" not in str(outcomes[bad])


def test_a_model_exported_for_one_row_gets_one_row_at_a_time(stage: OperatorStage) -> None:
    graph = Graph()
    graph.op("Cast", "x", to=FLOAT, result="y")
    session = Counting(session_of(graph, [tensor("x", "uint8", 1, 2)], [tensor("y", "float32", 1, 2)]))
    x = np.arange(6, dtype=np.uint8).reshape(3, 2)
    np.testing.assert_array_equal(good(infer_parts(stage, session, [part_of(x=x)])[0]).arrays["y"], x)
    assert session.rows == [1, 1, 1]


def test_a_batch_is_bounded_in_bytes_and_has_at_least_one_row(stage: OperatorStage) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (7, 10, 10), dtype=np.uint8)
    for batch_bytes, rows in ((50, [1] * 7), (250, [2, 2, 2, 1]), (10_000, [4, 3])):
        session = Counting(wider(), batch_bytes)
        y = good(infer_parts(stage, session, [part_of(0, x=planes)])[0]).arrays["y"]
        np.testing.assert_array_equal(y, np.concatenate([planes, planes], 2))
        assert session.rows == rows


def two_inputs() -> OnnxRuntimeSession:
    graph = Graph()
    graph.op("Add", "a", "b", result="y")
    return session_of(graph, [tensor("a", "float32", "N"), tensor("b", "float32", "N")], [tensor("y", "float32", "N")])


def totals() -> OnnxRuntimeSession:
    graph = Graph()
    graph.op("ReduceSum", "x", np.array([0]), keepdims=1, result="y")
    return session_of(graph, [tensor("x", "float32", "N")], [tensor("y", "float32", 1)])


@pytest.mark.parametrize(
    ("session", "change", "arrays", "words"),
    [
        (
            two_inputs,
            {},
            {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)},
            "different lengths: `a` 2, `b` 3",
        ),
        (two_inputs, {"each": ("a",)}, {"a": np.zeros(2, np.float32)}, "needs one input and one output"),
        (totals, {}, {"x": np.zeros(3, np.float32)}, "output `y`: shape [1] for a batch of 3"),
        (wider, {"each": ("plane0",)}, {"x": np.zeros((1, 2, 2), np.uint8)}, "runs over plane0, and a part has none"),
        (wider, {"each": ("plane0",)}, {"plane0": np.zeros((1, 2), np.uint8)}, "wants 3 dimensions in each of plane0"),
    ],
)
def test_says_what_does_not_fit(
    stage: OperatorStage, session: object, change: dict[str, object], arrays: dict[str, Array], words: str
) -> None:
    assert callable(session)
    (outcome,) = infer_parts(stage.model_copy(update=change), session(), [part_of(0, **arrays)])
    assert isinstance(outcome, ModelError)
    assert words in str(outcome)


def test_an_output_whose_shape_depends_on_the_pixels_is_an_error_of_that_part(stage: OperatorStage) -> None:
    graph = Graph()  # as many columns as the batch's largest number says
    count = graph.op("ReduceMax", "x", keepdims=0)
    columns = graph.op("Range", np.int64(0), count, np.int64(1))
    graph.op("Add", graph.op("Unsqueeze", "x", np.array([1])), columns, result="y")
    session = session_of(graph, [tensor("x", "int64", "N")], [tensor("y", "int64", "N", "K")])
    parts = [part_of(0, x=np.full(4, 3)), part_of(1, x=np.array([1, 1, 1, 2, 5])), part_of(2, x=np.full(3, 5))]
    outcomes = infer_parts(stage, session, parts)
    assert good(outcomes[0]).arrays["y"].shape == (4, 3)
    assert "output `y` changes its shape between batches: [2] and [5]" in str(outcomes[1])
    assert good(outcomes[2]).arrays["y"].shape == (3, 5)


def test_no_parts_no_answers(stage: OperatorStage) -> None:
    assert infer_parts(stage, sums(), []) == []


@pytest.fixture
def named() -> tuple[ModelSpec, bytes]:
    graph = Graph()
    graph.op("Cast", "x", to=FLOAT, result="y")
    return graph.finish(card([tensor("x", "uint8", "N", 2)], [tensor("y", "float32", "N", 2)]))


def test_session_says_which_input_is_wrong(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    session = OnnxRuntimeSession(body, spec)
    session.warm_up()
    with pytest.raises(ModelError, match=r"`tiny`, input `x`: expected uint8 \[N, 2\], found float32 \[1, 3\]"):
        session.run({"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(ModelError, match=r"got no input `x`, only `z`"):
        session.run({"z": np.zeros((1, 2), np.uint8)})
    session.close()
    session.close()


def test_session_takes_arrays_that_are_not_contiguous_or_read_only(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    x = np.frombuffer(bytes(range(12)), np.uint8).reshape(2, 6).T[:, ::-1]
    np.testing.assert_array_equal(OnnxRuntimeSession(body, spec).run({"x": x})["y"], x)


@pytest.mark.parametrize("body", [b"", b"not a model", b"\x08\x08"])
def test_bad_model_is_one_line(named: tuple[ModelSpec, bytes], body: bytes) -> None:
    with pytest.raises(ModelError, match="model `tiny` cannot be loaded") as caught:
        OnnxRuntimeSession(body, named[0])
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert caught.value.hint


def test_truncated_model_is_a_bad_model(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxRuntimeSession(body[: len(body) // 2], spec)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([tensor("z", "uint8", "N", 2)], [], "has no input `z`, only `x`"),
        ([tensor("x", "uint8", "N", 3)], [], r"its model card says uint8 \[N, 3\], its graph uint8 \[N, 2\]"),
        ([tensor("x", "float32", "N", 2)], [], r"its model card says float32 \[N, 2\]"),
        ([], [], "wants input `x`, and its model card lacks it"),
        ([tensor("x", "uint8", "N", 2)], [tensor("q", "float32", "N")], "has no output `q`, only `y`"),
    ],
)
def test_card_and_graph_must_agree(
    named: tuple[ModelSpec, bytes], inputs: list[TensorSpec], outputs: list[TensorSpec], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        OnnxRuntimeSession(named[1], card(inputs, outputs))


@pytest.mark.parametrize(
    ("kind", "attributes", "element", "shape", "words"),
    [
        ("Cast", {"to": onnx.TensorProto.STRING}, onnx.TensorProto.STRING, ["N"], "output `y` is text"),
        ("Cast", {"to": onnx.TensorProto.BFLOAT16}, onnx.TensorProto.BFLOAT16, ["N"], "output `y` is bfloat16"),
        ("SequenceConstruct", {}, None, ["N"], "output `y` is seq"),
        ("ReduceMean", {"keepdims": 0}, onnx.TensorProto.FLOAT, [], "output `y` has no batch dimension"),
    ],
)
def test_an_output_that_cannot_travel_is_refused_when_the_model_is_loaded(
    tmp_path: Path, kind: str, attributes: dict[str, int], element: int | None, shape: list[int | str], words: str
) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
    tensor_type = onnx.helper.make_tensor_type_proto(element or onnx.TensorProto.FLOAT, shape)
    y = onnx.helper.make_value_info("y", tensor_type if element else onnx.helper.make_sequence_type_proto(tensor_type))
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, ["x"], ["y"], **attributes)], "odd", [x], [y])
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words):
        load_model(path)


_LOG = "[ONNXRuntimeError] : 1 : FAIL : "
_FILE = "/onnxruntime_src/onnxruntime/core/"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed to load model because protobuf parsing failed.",
            "it is not a whole ONNX file",
        ),
        (
            f"{_LOG}{_FILE}graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const std::map<int(int), "
            "char>&) Unsupported model IR version: 99, max supported IR version: 14",
            "Unsupported model IR version: 99, max supported IR version: 14",
        ),
        (
            f'{_LOG}Load model from /x/m.onnx failed:This is an invalid model. In Node, ("n", Foo, "", -1) : '
            '("x": tensor(float),) -> ("y": tensor(float),) , Error No Op registered for Foo',
            "Foo `n`: No Op registered for Foo",
        ),
        (f"{_LOG}Node () Op (Add) [ShapeInferenceError] Incompatible dimensions", "Add: Incompatible dimensions"),
        (
            f"{_LOG}Non-zero status code returned while running Reshape node. Name:'' Status Message: {_FILE}tensor/"
            "reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) "
            "a == b::c was false. The input tensor cannot be reshaped\nto the requested shape.",
            "Reshape: The input tensor cannot be reshaped to the requested shape.",
        ),
        (
            f"{_LOG}Exception during initialization: {_FILE}optimizer/initializer.cc:51 onnxruntime::Initializer::"
            f"Initializer(const onnx::TensorProto&) {_LOG}tensorprotoutils.cc:1730 ValidateSize Initializer 'c': "
            "raw_data size (4 bytes) does not match",
            "Initializer 'c': raw_data size (4 bytes) does not match",
        ),
        (
            "Got invalid dimensions for input: x for the following indices index: 0 Got: 10 Expected: 1 Please fix "
            "either the inputs/outputs or the model.",
            "Got invalid dimensions for input: x for the following indices index: 0 Got: 10 Expected: 1",
        ),
        ("std::bad_alloc", "it needs more memory than there is"),
        ("", "RuntimeError"),
        ("x" * 900, "x" * 299 + "…"),
    ],
)
def test_of_what_onnx_runtime_says_the_reason_is_left(output: str, reason: str) -> None:
    assert one_line(RuntimeError(output)) == reason


def test_a_large_model_is_loaded_as_a_file(monkeypatch: pytest.MonkeyPatch, named: tuple[ModelSpec, bytes]) -> None:
    monkeypatch.setattr(onnxruntime, "_LARGE_BYTES", 0)
    spec, body = named
    x = np.ones((3, 2), np.uint8)
    np.testing.assert_array_equal(OnnxRuntimeSession(body, spec).run({"x": x})["y"], x)


def test_memory_that_a_large_frame_took_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "GIVE_BACK_S", 0.0)  # at every run
    monkeypatch.setattr(onnxruntime._ARENA, "_due_s", 0.0)
    upscale, other = (
        OnnxRuntimeSession(model, spec) for spec, model in map(builtin_model, ("lanczos2x", "shotchange"))
    )
    other.warm_up()
    before = rss_bytes([os.getpid()])
    upscale.run({"plane": np.zeros((1, 2160, 3840), np.uint8)})  # takes 400 MiB
    other.warm_up()  # by whatever runs next, of any model
    assert rss_bytes([os.getpid()]) - before < 100 << 20
    upscale.close()
    other.close()


def test_nobody_is_told_of_the_models_that_run_here(tmp_path: Path) -> None:
    """ONNX Runtime keeps a device's id and its reports in the home folder, where it makes any."""
    code = "from engines.inference import onnxruntime; import onnxruntime as runtime; runtime.SessionOptions()"
    inherited = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], env=inherited | {"HOME": str(tmp_path)}, timeout=60, check=True)
    assert not list(tmp_path.iterdir())
