"""What is left of outputs on a GPU: heads answer as they do on all of the outputs, bit for bit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.heads.reductions import Selected, Selection, reductions_of
from engines.heads.view import view_of
from engines.part import Value
from engines.ragged import Ragged
from engines.registry import load
from schemas.picture import PictureSpec
from tests.host_gpu import COMPILER, HostGpu
from tests.reducing import by_kernels, by_twin, check_equal
from tests.unit.detector_cases import CASES, ONET, ROWS, SPEC, VIEWS, Case
from tests.unit.head_reference import described

compiled = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
SELECTING = {name: case for name, case in {**CASES, "mtcnn o-net": ONET}.items() if case.decoder != "arrays"}
PICTURE = PictureSpec(size=(6, 8))
# edges of a threshold, values that are none, and the smallest float16
STRANGE = (0.0, -0.0, 0.25, 0.5, 0.25048828125, 1.0, -1.0, np.nan, np.inf, -np.inf, 6e-8, 1e30)


def head_of(case: Case, **options: object) -> Any:
    kind, more = ("keypoints", {"points": case.points, "dimensions": 2}) if case.points else ("detect", {})
    if case.points:
        more = {"points": case.points}
    given = {"decoder": case.decoder, **case.options, **more, **options}
    return load("heads", kind)(given, described(case.outputs), SPEC)


def all_ways(reductions: Sequence[Any], outputs: Mapping[str, np.ndarray]) -> list[Mapping[str, Value]]:
    """What the twin leaves, and the kernels where they can be compiled: the same, but for the rounding of a softmax."""
    left: list[Mapping[str, Value]] = [by_twin(reductions, outputs)]
    if COMPILER:
        left.append(by_kernels(HostGpu(), reductions, outputs))
        if not any(isinstance(each, Selection) and each.softmax for each in reductions):
            check_equal(left[1], left[0])
    return left


def changed(case: Case, draw: Any, dtype: Any) -> dict[str, np.ndarray]:
    """The outputs of a case with some strange values."""
    outputs = {}
    for name, value in case.outputs.items():
        if value.dtype.kind == "f":
            value = value.astype(dtype)
            for _ in range(draw(st.integers(0, 3))):
                at = draw(st.integers(0, value.size - 1))
                with np.errstate(over="ignore"):
                    value.reshape(-1)[at] = draw(st.sampled_from(STRANGE))
        outputs[name] = value
    return outputs


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("case", SELECTING.values(), ids=SELECTING)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_detector_finds_in_selected_candidates_what_it_finds_in_all(case: Case, data: st.DataObject) -> None:
    outputs = changed(case, data.draw, data.draw(st.sampled_from([np.float32, np.float16])))
    threshold = data.draw(st.sampled_from([0.0, 1e-6, case.threshold, 0.25, 0.5, 0.999, 1.0]))
    more = (
        {} if case.decoder in ("mtcnn", "retinaface", "scrfd", "yunet") else {"multi_label": data.draw(st.booleans())}
    )
    head = head_of(case, threshold=threshold, nms=data.draw(st.sampled_from([0.45, 1.0])), **more)
    expected = head.decode(outputs, VIEWS)
    for left in all_ways(head.reductions, outputs):
        check_equal(head.decode(left, VIEWS), expected)


@pytest.mark.parametrize("case", SELECTING.values(), ids=SELECTING)
def test_candidates_far_below_the_threshold_are_left_out(case: Case) -> None:
    """No more are left than the decoder finds at a threshold that is 5 % lower."""
    for threshold in (case.threshold, 1.0):
        head, lower = (head_of(case, threshold=each) for each in (threshold, threshold * 0.95))
        most = len(lower.decoder.candidates(case.outputs, VIEWS[0].picture).rows)
        for left in all_ways(head.reductions, case.outputs):
            selected = [left[each.outputs[0]] for each in head.reductions]
            assert sum(len(each.values) for each in selected if isinstance(each, Selected)) <= most


@pytest.mark.parametrize("case", SELECTING.values(), ids=SELECTING)
def test_a_batch_without_rows_has_no_candidates(case: Case) -> None:
    outputs = {name: value[:0] for name, value in case.outputs.items()}
    for left in all_ways(head_of(case).reductions, outputs):
        for value in left.values():
            assert isinstance(value, Selected)
            assert (len(value.values), value.offsets.tolist()) == (0, [0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("kind", "points", "extra"), [("obb", {}, 1), ("instances", {}, 8), ("keypoints", 4, 12)])
def test_what_stands_behind_a_box_is_selected_with_it(kind: str, points: Any, extra: int, dtype: Any) -> None:
    random = np.random.default_rng(5)
    rows = random.uniform(0, 64, (ROWS, 4 + 3 + extra, 200))
    rows[:, 4:7] = random.uniform(0, 1, (ROWS, 3, 200)) ** 3
    rows[:, 7:] = random.uniform(-1, 1, (ROWS, extra, 200))
    outputs = {"rows": rows.astype(dtype)}
    if kind == "instances":
        outputs["prototypes"] = random.uniform(-1, 1, (ROWS, 8, 16, 16)).astype(dtype)
    options = {"decoder": "yolov8", **({"points": points} if points else {})}
    head = load("heads", kind)(options, described(outputs), SPEC)
    for left in all_ways(head.reductions, outputs):
        assert isinstance(left["rows"], Ragged)
        check_equal(head.decode(left, VIEWS), head.decode(outputs, VIEWS))


PLANES: Mapping[str, tuple[str, tuple[int, ...], Mapping[str, Any]]] = {
    "classes": ("segment", (5, 6, 8), {}),
    "classes last": ("segment", (6, 8, 5), {"layout": "nhwc"}),
    "one class": ("segment", (1, 6, 8), {"threshold": 0.25}),
    "one class, no channel": ("segment", (6, 8), {"threshold": 0.25048828125}),
    "image": ("image", (3, 6, 8), {}),
    "image of another range": ("image", (3, 6, 8), {"range": (-1.0, 1.0), "colours": "bgr"}),
    "image of odd values": ("image", (6, 8, 3), {"range": (0.3, 0.7), "layout": "nhwc"}),
    "grey": ("image", (6, 8), {"colours": "gray"}),
    "matte": ("matte", (6, 8), {}),
    "a channel of a matte": ("matte", (3, 6, 8), {"channel": 2}),
    "the last of a matte": ("matte", (6, 8, 3), {"channel": 1, "layout": "nhwc"}),
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize(("kind", "shape", "options"), PLANES.values(), ids=PLANES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_picture_is_made_of_bytes_as_of_floats(
    kind: str, shape: tuple[int, ...], options: Mapping[str, Any], data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    dtype = data.draw(st.sampled_from([np.float32, np.float16]))
    values = np.round(random.uniform(-0.2, 1.2, (ROWS, *shape)), data.draw(st.integers(1, 4))).astype(dtype)
    halves = (np.arange(256) + 0.5) / 255  # between two bytes
    for _ in range(data.draw(st.integers(0, 6))):
        at, value = data.draw(st.integers(0, values.size - 1)), data.draw(st.sampled_from([*STRANGE, *halves]))
        with np.errstate(over="ignore"):
            values.reshape(-1)[at] = value
    outputs, views = {"o": values}, [view_of((30, 60), PICTURE)] * ROWS
    head = load("heads", kind)(options, described(outputs), PICTURE)
    assert reductions_of(head)
    for left in all_ways(head.reductions, outputs):
        assert not isinstance(left["o"], Ragged)
        assert left["o"].dtype == np.uint8
        check_equal(head.decode(left, views), head.decode(outputs, views))


@pytest.mark.parametrize(("shape", "options"), [((3, 6, 8), {"colours": "bgr"}), ((6, 8, 3), {"layout": "nhwc"})])
def test_a_picture_of_bytes_stays_as_it_is(shape: tuple[int, ...], options: Mapping[str, Any]) -> None:
    outputs = {"o": np.random.default_rng(2).integers(0, 256, (ROWS, *shape), np.uint8)}
    head, views = load("heads", "image")(options, described(outputs), PICTURE), [view_of((30, 60), PICTURE)] * ROWS
    for left in all_ways(head.reductions, outputs):
        check_equal(head.decode(left, views), head.decode(outputs, views))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("segment", {"activation": "sigmoid"}),
        ("matte", {"activation": "sigmoid"}),
        ("matte", {"stretch": True}),
        ("depth", {}),
    ],
)
def test_what_a_gpu_would_round_otherwise_is_not_reduced(kind: str, options: Mapping[str, Any]) -> None:
    outputs = {"o": np.zeros((ROWS, 1, 6, 8), np.float32)}
    assert reductions_of(load("heads", kind)(options, described(outputs), PICTURE)) == ()


@compiled
def test_outputs_of_other_dtypes_and_dimensions_are_copied_as_they_are() -> None:
    case = CASES["yolov8"]
    for outputs in (
        {"rows": case.outputs["rows"].astype(np.float64)},
        {"rows": case.outputs["rows"][0]},
        {"rows": case.outputs["rows"][..., None]},
    ):
        check_equal(by_kernels(HostGpu(), head_of(case).reductions, outputs), outputs)
    grids = CASES["scrfd"]
    odd = {**grids.outputs, "bbox8": grids.outputs["bbox8"][:, 1:]}
    left = by_kernels(HostGpu(), head_of(grids).reductions, odd)
    assert {name for name, value in left.items() if not isinstance(value, Ragged)} == {"score8", "bbox8", "kps8"}
