"""The head detect: each decoder against a loop over candidates, on seeded random outputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from engines.heads.boxes import Detector
from engines.heads.detect import Detect
from engines.heads.view import View, view_of
from engines.ragged import Ragged
from engines.registry import GROUPS
from schemas.errors import ModelError
from schemas.model import PictureSpec
from tests.unit.head_reference import Answer, Box, Boxes, Outputs, described, in_source, kept, rows_of

SIDE, ROWS, CLASSES = 64, 3, 4
SPEC = PictureSpec(size=(SIDE, SIDE), fit="letterbox", pad_value=114)
VIEWS = [view_of(size, SPEC) for size in ((48, 64), (101, 37), (30, 200))]
RNG = np.random.default_rng(20261127)


@dataclass
class Case:
    """Outputs of a decoder for `ROWS` pictures, and how to read one picture's, a candidate at a time."""

    decoder: str
    outputs: Outputs
    boxes: Boxes
    options: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.25
    nms: float = 0.45
    most: int = 300
    class_aware: bool = True


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def from_center(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def best(scores: list[float]) -> dict[int, float]:
    label = max(range(len(scores)), key=lambda each: scores[each])
    return {label: scores[label]}


def center_rows(count: int, *more: np.ndarray) -> np.ndarray:
    """`[ROWS, count, 4 + ...]`: centers and sizes that overlap often, and what stands behind."""
    centers, sizes = uniform(ROWS, count, 2, high=SIDE), uniform(ROWS, count, 2, low=8, high=30)
    return np.concatenate([centers, sizes, *more], axis=-1)


def yolov8(transposed: bool) -> Case:
    rows = center_rows(300, uniform(ROWS, 300, CLASSES) ** 3)
    boxes = lambda o: [Box(from_center(*row[:4]), best(row[4:])) for row in (o["rows"])]  # noqa: E731
    outputs = {"rows": rows if transposed else np.ascontiguousarray(rows.swapaxes(1, 2))}
    read = boxes if transposed else (lambda o: boxes({"rows": list(zip(*o["rows"], strict=True))}))
    return Case("yolov8", outputs, read, {"transposed": transposed}, nms=0.7)


def yolov5() -> Case:
    rows = center_rows(300, uniform(ROWS, 300, 1), uniform(ROWS, 300, CLASSES))

    def read(o: Mapping[str, Any]) -> list[Box]:
        return [Box(from_center(*row[:4]), best([row[4] * score for score in row[5:]])) for row in o["output"]]

    return Case("yolov5", {"output": rows}, read, most=1000)


CASES = {
    "yolov8": yolov8(transposed=False),
    "yolov8 transposed": yolov8(transposed=True),
    "yolov5": yolov5(),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def head_of(case: Case, **options: object) -> Detect:
    return Detect({"decoder": case.decoder, **case.options, **options}, described(case.outputs), SPEC)


def decoded(case: Case, views: list[View] = VIEWS, **options: object) -> dict[str, Ragged]:
    found = head_of(case, **options).decode(case.outputs, views)
    assert all(isinstance(value, Ragged) for value in found.values())
    return found  # type: ignore[return-value]


def check(found: Mapping[str, Ragged], expected: list[list[Answer]], views: list[View] = VIEWS) -> None:
    assert sum(map(len, expected)) > 20, "the case says little"
    for number, (view, answers) in enumerate(zip(views, expected, strict=True)):
        assert found["classes"].row(number).tolist() == [answer.label for answer in answers]
        scores = found["scores"].row(number)
        np.testing.assert_allclose(scores, [answer.score for answer in answers], rtol=1e-5)
        boxes = np.array([in_source(view, answer.corners) for answer in answers])
        np.testing.assert_allclose(found["boxes"].row(number), boxes, rtol=1e-5, atol=1e-4)


def reference(case: Case, **options: Any) -> list[list[Answer]]:
    said = {"threshold": case.threshold, "nms": case.nms, "most": case.most, "class_aware": case.class_aware, **options}
    return [kept(case.boxes(rows_of(case.outputs, number)), **said) for number in range(ROWS)]


@EACH
def test_boxes_are_those_of_the_reference(case: Case) -> None:
    check(decoded(case), reference(case))


@EACH
def test_options_are_those_of_the_reference(case: Case) -> None:
    found = decoded(case, threshold=0.5, nms=0.2, max=9, class_aware=False)
    check(found, reference(case, threshold=0.5, nms=0.2, most=9, class_aware=False))


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
    found = decoded(case, threshold=1e9)
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
        value[1] = math.nan
    found = head_of(case).decode(broken, VIEWS)
    for name, value in decoded(case).items():
        assert isinstance(found[name], Ragged)
        assert len(found[name].row(1)) == 0
        np.testing.assert_array_equal(found[name].row(2), value.row(2))


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
        ({"decoder": "yolov4"}, r"there is no decoder yolov4: there are .*yolov8"),
        (
            {"decoder": "yolov8", "treshold": 1},
            r"decoder yolov8, option treshold: unknown field: the options .*threshold",
        ),
        ({"decoder": "yolov8", "nms": 2}, r"decoder yolov8, option nms: should be less than or equal to 1, found 2"),
        ({"decoder": "yolov8", "output": "boxes"}, r"decoder yolov8: the model has no output boxes: .*rows"),
        ({"decoder": "yolov8", "labels": ["cat", "dog"]}, r"head detect: 2 labels for 4 classes"),
    ],
)
def test_errors_say_what_to_do(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Detector(options, described(CASES["yolov8"].outputs), "detect")
