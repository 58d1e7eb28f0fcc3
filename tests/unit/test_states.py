"""Models with a state, part by part, on real ONNX Runtime."""

import numpy as np
import pytest

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.graph import Graph
from engines.operators.infer import Infer
from engines.part import Part, no_tick
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
