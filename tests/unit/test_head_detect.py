"""The head detect: each decoder against a loop over candidates, on seeded random outputs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines.heads.boxes import MOST_CANDIDATES, Detector
from engines.heads.detect import Detect
from engines.heads.view import View, view_of
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.registry import GROUPS
from schemas.errors import ModelError
from schemas.picture import PictureSpec
from tests.unit.detector_cases import CASES, ROWS, SIDE, SPEC, VIEWS, Case
from tests.unit.head_reference import Answer, described, in_source, kept, rows_of

EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def head_of(case: Case, **options: object) -> Detect:
    return Detect({"decoder": case.decoder, **case.options, **options}, described(case.outputs), SPEC)


def decoded(case: Case, views: list[View] = VIEWS, **options: object) -> dict[str, Ragged]:
    found = head_of(case, **options).decode(case.outputs, views)
    assert all(isinstance(value, Ragged) for value in found.values())
    return found  # type: ignore[return-value]


def check(found: Mapping[str, Ragged], expected: list[list[Answer]], views: list[View] = VIEWS) -> None:
    assert sum(map(len, expected)) > 5, "the case says little"
    for number, (view, answers) in enumerate(zip(views, expected, strict=True)):
        assert found["classes"].row(number).tolist() == [answer.label for answer in answers]
        scores = found["scores"].row(number)
        np.testing.assert_allclose(scores, [answer.score for answer in answers], rtol=1e-5)
        boxes = np.array([in_source(view, answer.corners) for answer in answers])
        np.testing.assert_allclose(found["boxes"].row(number), boxes, rtol=1e-5, atol=1e-4)


def reference(case: Case, **options: Any) -> list[list[Answer]]:
    said = {"threshold": case.threshold, "nms": case.nms, "most": case.most, "class_aware": True, **options}
    return [kept(view, case.boxes(rows_of(case.outputs, number)), **said) for number, view in enumerate(VIEWS)]


@EACH
def test_boxes_are_those_of_the_reference(case: Case) -> None:
    check(decoded(case), reference(case))


@EACH
def test_options_are_those_of_the_reference(case: Case) -> None:
    found = decoded(case, threshold=0.5, nms=0.3, max=9, class_aware=False)
    check(found, reference(case, threshold=0.5, nms=0.3, most=9, class_aware=False))


@EACH
def test_a_row_does_not_depend_on_its_neighbours(case: Case) -> None:
    together = decoded(case)
    for number, view in enumerate(VIEWS):
        alone = head_of(case).decode({k: v[number : number + 1] for k, v in case.outputs.items()}, [view])
        for name, value in alone.items():
            assert isinstance(value, Ragged)
            np.testing.assert_array_equal(value.values, together[name].row(number))


@EACH
def test_nothing_found_is_an_empty_row(case: Case) -> None:
    found = decoded(case, threshold=1)
    assert [value.offsets.tolist() for value in found.values()] == [[0] * (ROWS + 1)] * 3
    assert {name: (value.values.shape, value.values.dtype.name) for name, value in found.items()} == {
        "boxes": ((0, 4), "float32"),
        "scores": ((0,), "float32"),
        "classes": ((0,), "int32"),
    }


@EACH
def test_arrays_are_as_planned(case: Case) -> None:
    found = decoded(case)
    for name, tensor in head_of(case).plan().items():
        assert (found[name].values.dtype.name, tensor.ragged) == (tensor.dtype, True)
        assert found[name].values.shape[1:] == tensor.shape[2:]


@EACH
def test_what_is_no_number_is_no_box(case: Case) -> None:
    broken = {name: value.copy() for name, value in case.outputs.items()}
    for value in broken.values():
        if value.dtype.kind == "f":
            value[1] = math.nan
    found = head_of(case).decode(broken, VIEWS)
    for name, value in decoded(case).items():
        assert isinstance(found[name], Ragged)
        assert len(found[name].row(1)) == 0
        np.testing.assert_array_equal(found[name].row(2), value.row(2))


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ([32, 4, 20, 6], None),  # x, y, width and height in the padding above
        ([32, 60, 20, 8], None),  # below it
        ([32, 16, 20, 4], [22, 0, 42, 2]),  # it reaches into the source
        ([32, 30, 0, 8], None),  # no width
        ([32, 30, 8, -8], None),
        ([-30, 30, 20, 8], None),  # left of the source
    ],
)
def test_a_box_without_area_in_the_source_is_no_detection(box: list[float], found: list[float] | None) -> None:
    """Nor does it suppress a box that overlaps with it in the padding."""
    rows = np.array([[[*box, 0.9]]], np.float32)
    spec = PictureSpec(size=(64, 64), fit="letterbox")
    head = Detect({"decoder": "yolov8", "transposed": True}, described({"o": rows}), spec)
    made = head.decode({"o": rows}, [view_of((32, 64), spec)])["boxes"]
    assert isinstance(made, Ragged)
    assert made.row(0).tolist() == ([] if found is None else [found])
    near = np.array([[[32, 13, 20, 8, 0.9], [32, 11, 20, 8, 0.95], [32, 14, 20, 8, 0.8]]], np.float32)
    made = head.decode({"o": near}, [view_of((32, 64), spec)])["boxes"]
    assert isinstance(made, Ragged)
    assert made.row(0).tolist() == [[22, 0, 42, 1]]


def test_every_decoder_is_tested() -> None:
    assert {case.decoder for case in CASES.values()} == GROUPS["decoders"].classes.keys()


def test_equal_scores_keep_their_order() -> None:
    boxes = np.array([[[10, 10, 8, 8, 0.5], [30, 30, 8, 8, 0.5], [10, 11, 8, 8, 0.5]]], np.float32)
    head = Detect({"decoder": "yolov8", "transposed": True}, described({"o": boxes}), SPEC)
    found = head.decode({"o": boxes}, [view_of((SIDE, SIDE), SPEC)])["boxes"]
    assert isinstance(found, Ragged)
    assert found.row(0).tolist() == [[6, 6, 14, 14], [26, 26, 34, 34]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"head detect needs a decoder: there are .*yolov8"),
        ({"decoder": "yolov4"}, r"there is no decoder yolov4: did you mean yolov8. there are .*yolox"),
        (
            {"decoder": "yolov8", "treshold": 1},
            r"decoder yolov8, option treshold: unknown field: did you mean threshold. the options .*threshold",
        ),
        ({"decoder": "yolov8", "nms": 2}, r"decoder yolov8, option nms: should be less than or equal to 1, found 2"),
        ({"decoder": "yolov8", "output": "boxes"}, r"decoder yolov8: the model has no output boxes: .*rows"),
        ({"decoder": "yolov8", "labels": ["cat", "dog"]}, r"head detect: 2 labels for 4 classes"),
    ],
)
def test_errors_say_what_to_do(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Detector(options, described(CASES["yolov8"].outputs), "detect")


def test_the_row_of_the_batch_may_stand_in_a_column() -> None:
    # YOLOv7 for TensorRT: row, x1, y1, x2, y2, class, score; in any order, one row of the batch without a box
    table = np.array(
        [
            [2, 10, 10, 20, 20, 1, 0.6],
            [0, 1, 2, 3, 4, 0, 0.9],
            [2, 30, 30, 40, 40, 1, 0.7],
            [0, 5, 6, 7, 8, 0, 0.1],
            [-1, 0, 0, 0, 0, 0, 0.9],
            [7, 0, 0, 9, 9, 0, 0.9],
        ],
        np.float32,
    )
    options = {"decoder": "end2end", "columns": ["row", "x1", "y1", "x2", "y2", "class", "score"]}
    head = Detect(options, {"det": Tensor("float32", ("M", 7))}, SPEC)
    found = head.decode({"det": table}, [view_of((SIDE, SIDE), SPEC)] * 3)
    assert [found["boxes"].row(n).tolist() for n in range(3)] == [
        [[1, 2, 3, 4]],
        [],
        [[30, 30, 40, 40], [10, 10, 20, 20]],
    ]
    assert found["classes"].row(2).tolist() == [1, 1]


def test_what_is_no_class_is_no_box() -> None:
    rows = np.array([[[0, 0, 9, 9, 0.9, -1], [0, 0, 9, 9, 0.8, np.nan], [0, 0, 9, 9, 0.7, 2]]] * 2, np.float32)
    head = Detect({"decoder": "end2end", "nms": 0.5}, {"o": Tensor("float32", ("N", 3, 6))}, SPEC)
    found = head.decode({"o": rows}, [view_of((SIDE, SIDE), SPEC)] * 2)
    assert (found["classes"].values.tolist(), found["classes"].offsets.tolist()) == ([2, 2], [0, 1, 2])


def test_openvino_detections_are_read() -> None:
    # [1, 1, K, 7]: row, class, score, corners as shares of the picture's sides
    table = np.array([[[[0, 3, 0.8, 0.25, 0.5, 0.75, 1], [-1, 0, 0, 0, 0, 0, 0]]]], np.float32)
    options = {"columns": ["row", "class", "score", "x1", "y1", "x2", "y2"], "normalised": True}
    head = Detect({"decoder": "end2end", **options}, {"det": Tensor("float32", (1, 1, "K", 7))}, SPEC)
    found = head.decode({"det": table}, [view_of((SIDE, SIDE), SPEC)])
    assert (found["boxes"].row(0).tolist(), found["classes"].row(0).tolist()) == ([[16, 32, 48, 64]], [3])


@pytest.mark.parametrize("name", ["end2end", "arrays with scores"])
def test_rows_may_have_any_number_of_boxes(name: str) -> None:
    case = CASES[name]
    counts = [30, 0, 7]
    outputs = {
        name: Ragged.of([row[:count] for row, count in zip(value, counts, strict=True)])
        for name, value in case.outputs.items()
    }
    found = head_of(case, threshold=0.5).decode(outputs, VIEWS)
    for number, count in enumerate(counts):
        cut = {name: value[number : number + 1, :count] for name, value in case.outputs.items()}
        alone = head_of(case, threshold=0.5).decode(cut, VIEWS[number : number + 1])
        for array in alone:
            np.testing.assert_array_equal(found[array].row(number), alone[array].row(0))
    assert len(found["boxes"].row(1)) == 0 < len(found["boxes"].row(2))


@EACH
def test_a_batch_without_rows_gives_arrays_without_rows(case: Case) -> None:
    found = head_of(case).decode({name: value[:0] for name, value in case.outputs.items()}, [])
    assert {name: (value.offsets.tolist(), len(value.values)) for name, value in found.items()} == dict.fromkeys(
        ("boxes", "scores", "classes"), ([0], 0)
    )


def test_a_picture_of_another_size_than_the_grids_is_an_error() -> None:
    case = CASES["yolox"]
    view = view_of((48, 64), PictureSpec(size=(96, 96)))
    with pytest.raises(ModelError, match="84 candidates, and a picture of 96x96 has 189: correct strides"):
        head_of(case).decode(case.outputs, [view] * ROWS)


def test_of_very_many_candidates_the_best_are_compared() -> None:
    """All boxes but the worst are equal; the worst is elsewhere, and only counts where there is room for it."""
    table = np.tile(np.float32([SIDE / 2, SIDE / 2, SIDE / 2 + 4, SIDE / 2 + 4, 0.9, 0]), (2, MOST_CANDIDATES + 1, 1))
    table[:, -1] = (SIDE / 2 - 5, SIDE / 2 - 5, SIDE / 2, SIDE / 2, 0.5, 0)
    head = Detect({"decoder": "end2end", "nms": 0.5}, described({"o": table}), SPEC)
    for outputs, most in ((table, 1), (table[:, 1:], 2)):
        found = head.decode({"o": outputs}, VIEWS[:2])["boxes"]
        assert isinstance(found, Ragged)
        assert np.diff(found.offsets).tolist() == [most, most]
