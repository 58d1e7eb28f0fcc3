"""Models with a state, part by part, on real ONNX Runtime."""

import numpy as np
import pytest

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.graph import Graph
from engines.operators.infer import Infer
from engines.part import Part, no_tick
from engines.ragged import Ragged
from schemas.errors import ModelError, RigflowError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import ModelSpec, StateSpec, TensorSpec
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage


def choosing() -> OnnxRuntimeSession:
    """`choice [1]`, and the sum of the numbers chosen so far -> `sum [1]`; fails on a choice that is none of ten."""
    graph = Graph()
    chosen = graph.op("Gather", np.arange(10, 20, dtype=np.float32), "choice")
    graph.op("Add", chosen, "before", result="after")
    graph.op("Identity", "after", result="sum")
    state = StateSpec(output="after", start=100)
    inputs = (
        TensorSpec(name="choice", dtype="int64", shape=(1,)),
        TensorSpec(name="before", dtype="float32", shape=(1,), state=state),
    )
    outputs = tuple(TensorSpec(name=name, dtype="float32", shape=(1,)) for name in ("after", "sum"))
    spec, body = graph.finish(ModelSpec(name="choosing", inputs=inputs, outputs=outputs, sha256=""))
    return OnnxRuntimeSession(body, spec)


def part_of(choices: list[int], segment: int, number: int, last: bool = False) -> Part:
    key = Key(job=JobRef(id="job", pipeline="p", revision="r"), segment=segment, part=number, last=last)
    meta = PartMeta(key=key, media=MediaInfo(kind="video"), pts=tuple(range(len(choices))))
    return Part(meta, {"choice": np.array(choices, np.int64)})


@pytest.fixture
def session() -> OnnxRuntimeSession:
    return choosing()


@pytest.fixture
def infer(session: OnnxRuntimeSession) -> Infer:
    return Infer(OperatorStage(kind="infer", name="infer", model="choosing"), session.spec)


def sums(infer: Infer, session: OnnxRuntimeSession, *parts: Part) -> list[list[float] | RigflowError]:
    outcomes = infer.run(parts, session, no_tick)
    return [each if isinstance(each, RigflowError) else each.array("sum").tolist() for each in outcomes]


def test_segments_have_states_of_their_own(infer: Infer, session: OnnxRuntimeSession) -> None:
    parts = [part_of([1, 2], 0, 0), part_of([5], 1, 0), part_of([], 0, 1), part_of([3], 0, 2, last=True)]
    assert sums(infer, session, *parts) == [[111, 123], [115], [], [136]]
    assert sums(infer, session, part_of([4], 1, 1)) == [[129]]


def test_what_comes_after_a_part_that_failed_fails_too(infer: Infer, session: OnnxRuntimeSession) -> None:
    """Its state would be that of the row before the one that failed."""
    first, second, third = sums(infer, session, part_of([1], 0, 0), part_of([1, 99], 0, 1), part_of([1], 0, 2))
    assert first == [111]
    assert isinstance(second, ModelError)
    assert "out of data bounds" in second.what
    assert isinstance(third, ModelError)
    assert third.what == "part 2 of segment 0 has no state to begin with"
    assert sums(infer, session, part_of([1], 0, 0)) == [[111]]  # the segment anew


def test_windows_of_a_warm_up_are_dropped_with_the_frames_that_they_alone_look_at() -> None:
    """Values of windows, ragged ones, frames of windows that overlap, and frames that no `index` maps to windows."""
    part = part_of([0, 1, 2, 3], 0, 0)
    arrays = {
        "score": np.arange(4),
        "boxes": Ragged(np.arange(6), np.array([0, 2, 2, 5, 6])),
        "pixels": np.arange(5),
        "index": np.array([[0, 1], [1, 2], [2, 3], [3, 4]], np.int32),
    }
    warm = Part(part.meta.model_copy(update={"warm_up": 2}), arrays)
    kept = warm.without_warm_up()
    assert (kept.meta.pts, kept.meta.warm_up) == ((2, 3), 0)
    assert kept.array("score").tolist() == [2, 3]
    boxes = kept.arrays["boxes"]
    assert isinstance(boxes, Ragged)
    assert [boxes.row(row).tolist() for row in range(2)] == [[2, 3, 4], [5]]
    assert kept.array("pixels").tolist() == [2, 3, 4]
    assert kept.array("index").tolist() == [[0, 1], [1, 2]]
    alone = warm.with_arrays({"pixels": np.arange(4)}).without_warm_up()
    assert alone.array("pixels").tolist() == [2, 3]
    none = warm.with_arrays(arrays, warm_up=4).without_warm_up()
    assert [len(value) for value in none.arrays.values()] == [0, 0, 0, 0]
    assert part.without_warm_up() is part
