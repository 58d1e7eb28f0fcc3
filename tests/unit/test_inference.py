"""Sessions and batching, on real ONNX Runtime and small real graphs."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.inference.batch import infer_parts
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.graph import FLOAT, Graph
from engines.part import Array, Part
from schemas.errors import ModelError, RigflowError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import ModelSpec, TensorSpec
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage


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
