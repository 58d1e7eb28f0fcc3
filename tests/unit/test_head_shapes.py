"""The heads keypoints, obb and instances: what they give beside boxes, against loops in plain Python."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from engines.heads.base import Head
from engines.heads.instances import Instances
from engines.heads.keypoints import Keypoints
from engines.heads.obb import OrientedBoxes, gaussian_overlap
from engines.heads.view import View
from engines.part import Value
from engines.ragged import Ragged
from schemas.errors import ModelError
from tests.unit.detector_cases import (
    CASES,
    CLASSES,
    ONET,
    ROWS,
    SIDE,
    SPEC,
    VIEWS,
    Case,
    best,
    center_rows,
    from_center,
    uniform,
)
from tests.unit.head_reference import Answer, Box, clipped, described, has_area, in_source, kept, rows_of, to_source

Corners = list[tuple[float, float]]
FACES = [case for case in (*CASES.values(), ONET) if case.points]


def ragged(found: Mapping[str, Value], name: str) -> Ragged:
    value = found[name]
    assert isinstance(value, Ragged)
    return value


def check_as_planned(head: Head, found: Mapping[str, Value]) -> None:
    assert head.plan().keys() == found.keys()
    for name, tensor in head.plan().items():
        assert ragged(found, name).values.dtype == tensor.dtype
        assert ragged(found, name).values.shape[1:] == tensor.shape[2:]


def check_alone(head: Head, outputs: Mapping[str, np.ndarray]) -> None:
    """A row does not depend on its neighbours, and no rows give no rows."""
    together = head.decode(outputs, VIEWS)
    for number, view in enumerate(VIEWS):
        for name, value in head.decode({k: v[number : number + 1] for k, v in outputs.items()}, [view]).items():
            assert isinstance(value, Ragged)
            np.testing.assert_array_equal(value.values, ragged(together, name).row(number))
    empty = head.decode({name: value[:0] for name, value in outputs.items()}, [])
    check_as_planned(head, empty)
    assert all(len(value) == 0 for value in empty.values())


def points_in_source(view: View, answer: Answer) -> list[list[float]]:
    flat = answer.extra
    return [[*clipped(view, flat[k], flat[k + 1]), flat[k + 2]] for k in range(0, len(flat), 3)]


@pytest.mark.parametrize("case", FACES, ids=lambda case: case.decoder)
def test_the_points_of_faces_are_those_of_the_reference(case: Case) -> None:
    head = Keypoints({"decoder": case.decoder, "points": 5, **case.options}, described(case.outputs), SPEC)
    found = head.decode(case.outputs, VIEWS)
    check_as_planned(head, found)
    check_alone(head, case.outputs)
    for number, view in enumerate(VIEWS):
        answers = kept(view, case.boxes(rows_of(case.outputs, number)), case.threshold, case.nms, 300, True)
        assert answers
        expected = [points_in_source(view, answer) for answer in answers]
        np.testing.assert_allclose(ragged(found, "keypoints").row(number), expected, rtol=1e-5, atol=1e-4)
        boxes = [in_source(view, answer.corners) for answer in answers]
        np.testing.assert_allclose(ragged(found, "boxes").row(number), boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_poses_are_those_of_the_reference(dimensions: int) -> None:
    points = uniform(100, 4, dimensions, low=-5, high=SIDE + 5)
    rows = center_rows(100, uniform(100, 1), points.reshape(ROWS, 100, -1))
    outputs = {"output0": np.ascontiguousarray(rows.swapaxes(1, 2))}
    names = ("nose", "neck", "left hand", "right hand")
    head = Keypoints({"decoder": "yolov8", "points": names, "dimensions": dimensions}, described(outputs), SPEC)
    assert head.plan()["keypoints"].labels == names
    found = head.decode(outputs, VIEWS)
    check_as_planned(head, found)
    check_alone(head, outputs)
    for number, view in enumerate(VIEWS):
        boxes = []
        for row, place in zip(rows[number].tolist(), points[number].tolist(), strict=True):
            extra = [value for point in place for value in (point if dimensions == 3 else [*point, 1])]
            boxes.append(Box(from_center(*row[:4]), {0: row[4]}, extra))
        expected = [points_in_source(view, answer) for answer in kept(view, boxes, 0.25, 0.7, 300, True)]
        np.testing.assert_allclose(ragged(found, "keypoints").row(number), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        ("nanodet", {}, "decoder nanodet gives boxes only: choose another decoder"),
        ("yunet", {}, "decoder yunet gives boxes and 5 points each: say points = 5"),
        ("yunet", {"points": 0}, "head keypoints, option points"),
    ],
)
def test_points_that_are_not_there_are_an_error(decoder: str, options: Mapping[str, object], message: str) -> None:
    case = CASES[decoder]
    with pytest.raises(ModelError, match=message):
        Keypoints({"decoder": decoder, **options}, described(case.outputs), SPEC)


def covariance(width: float, height: float, angle: float) -> np.ndarray:
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag([width**2 / 12, height**2 / 12]) @ turn.T


def turned_overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """1 less the Hellinger distance, from the Bhattacharyya distance of two Gaussians by their matrices."""
    (x, y, *shape), (other_x, other_y, *other_shape) = first, second
    one, other, away = covariance(*shape), covariance(*other_shape), np.array([x - other_x, y - other_y])
    mean = (one + other) / 2
    ratio = np.linalg.det(mean) / math.sqrt(np.linalg.det(one) * np.linalg.det(other))
    distance = away @ np.linalg.inv(mean) @ away / 8 + math.log(ratio) / 2
    return 1 - math.sqrt(max(0, 1 - math.exp(-distance)))


def turned_corners(view: View, x: float, y: float, width: float, height: float, angle: float) -> Corners:
    """The corners of a turned box in pixels of the source."""
    signs, turn = ((1, 1), (1, -1), (-1, -1), (-1, 1)), complex(math.cos(angle), math.sin(angle))
    places = [complex(a * width / 2, b * height / 2) * turn for a, b in signs]
    return [to_source(view, x + place.real, y + place.imag) for place in places]


def enclosing_box(view: View, corners: Corners) -> list[float]:
    """The box around corners, clipped to the source."""
    inside = np.clip(corners, 0, view.source[::-1])
    return [*inside.min(0).tolist(), *inside.max(0).tolist()]


def turned_boxes(
    view: View, rows: Sequence[Sequence[float]], threshold: float, nms: float
) -> list[tuple[int, Sequence[float]]]:
    """What a loop over candidates keeps: class, and x, y, width, height and angle."""
    found: list[tuple[int, Sequence[float]]] = []
    rows = [row for row in rows if has_area(enclosing_box(view, turned_corners(view, *row[:4], row[-1])))]
    scored = [(*next(iter(best(row[4:-1]).items())), [*row[:4], row[-1]]) for row in rows]
    for label, score, box in sorted(scored, key=lambda each: -each[1]):
        if score > threshold and all(turned_overlap(box, other) <= nms for same, other in found if same == label):
            found.append((label, box))
    return found


def test_turned_boxes_are_those_of_the_reference() -> None:
    rows = center_rows(200, uniform(200, CLASSES) ** 2, uniform(200, 1, low=-1, high=2))
    outputs = {"output0": np.ascontiguousarray(rows.swapaxes(1, 2))}
    head = OrientedBoxes({"decoder": "yolov8", "nms": 0.5}, described(outputs), SPEC)
    found = head.decode(outputs, VIEWS)
    check_as_planned(head, found)
    check_alone(head, outputs)
    for number, view in enumerate(VIEWS):
        expected = turned_boxes(view, rows[number].tolist(), 0.25, 0.5)
        assert 5 < len(expected) < 150
        assert ragged(found, "classes").row(number).tolist() == [label for label, _ in expected]
        for corners, enclosing, (_, box) in zip(
            ragged(found, "corners").row(number), ragged(found, "boxes").row(number), expected, strict=True
        ):
            wanted = turned_corners(view, *box)
            np.testing.assert_allclose(corners, wanted, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(enclosing, enclosing_box(view, wanted), rtol=1e-4, atol=1e-3)


def test_a_box_overlaps_wholly_with_itself() -> None:
    box = np.array([[0, 0, 40, 10, 0.3]], np.float32)
    far = box + np.float32([1000, 0, 1000, 0, 0])
    assert gaussian_overlap(box, box)[0] == pytest.approx(1, abs=1e-3)
    assert gaussian_overlap(box, far)[0] == pytest.approx(0, abs=1e-3)


def bilinear(grid: Sequence[Sequence[float]], y: float, x: float) -> float:
    y, x = min(max(y, 0), len(grid) - 1), min(max(x, 0), len(grid[0]) - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, len(grid) - 1), min(left + 1, len(grid[0]) - 1)
    low, far = y - top, x - left
    upper = grid[top][left] * (1 - far) + grid[top][right] * far
    return upper * (1 - low) + (grid[bottom][left] * (1 - far) + grid[bottom][right] * far) * low


def test_masks_are_those_of_the_reference() -> None:
    count, size = 3, 7
    rows = center_rows(40, uniform(40, CLASSES), uniform(40, count, low=-1))
    prototypes = uniform(count, 16, 16, low=-1)
    outputs = {"output0": np.ascontiguousarray(rows.swapaxes(1, 2)), "output1": prototypes}
    head = Instances({"decoder": "yolov8", "mask_size": size}, described(outputs), SPEC)
    found = head.decode(outputs, VIEWS)
    assert head.reads == ("output0", "output1")
    check_as_planned(head, found)
    check_alone(head, outputs)
    for number, view in enumerate(VIEWS):
        boxes = [Box(from_center(*row[:4]), best(row[4:-count]), row[-count:]) for row in rows[number].tolist()]
        answers = kept(view, boxes, 0.25, 0.7, 300, True)
        assert len(answers) == len(ragged(found, "masks").row(number)) > 5
        for answer, mask in zip(answers, ragged(found, "masks").row(number), strict=True):
            grid = sum(c * p for c, p in zip(answer.extra, prototypes[number].astype(float), strict=True)).tolist()
            left, top, right, bottom = in_source(view, answer.corners)
            for row in range(size):
                for column in range(size):
                    x = left + (right - left) * (column + 0.5) / size  # in the source
                    y = top + (bottom - top) * (row + 0.5) / size
                    x = x * view.scaled[1] / view.source[1] + view.left  # in the picture
                    y = y * view.scaled[0] / view.source[0] + view.top
                    logit = bilinear(grid, y * 16 / SIDE - 0.5, x * 16 / SIDE - 0.5)
                    if abs(logit) > 1e-4:
                        assert mask[row, column] == (255 if logit > 0 else 0)
