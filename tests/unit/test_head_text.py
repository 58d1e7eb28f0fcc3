"""The heads text_boxes and text, and turned lines, against SciPy and loops in plain Python."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from engines.heads.regions import Rectangle, runs_of, smallest_rectangle
from engines.heads.text import Text
from engines.heads.text_boxes import TextBoxes
from engines.heads.view import View
from engines.operators.turn import Turn
from engines.part import Part
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError, PipelineError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage

Array = np.ndarray[Any, Any]


@settings(max_examples=60)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0, 1), st.integers(0, 999))
def test_regions_are_those_of_scipy(height: int, width: int, share: float, seed: int) -> None:
    bitmap = np.random.default_rng(seed).random((height, width)) < share
    runs = runs_of(bitmap)
    found = np.zeros(bitmap.shape, int)
    for row, first, last, region in zip(runs.row, runs.first, runs.last, runs.region, strict=True):
        found[row, first : last + 1] = region + 1
    expected, count = ndimage.label(bitmap, np.ones((3, 3)))
    assert ((found > 0) == bitmap).all()
    assert len({*zip(found[bitmap].tolist(), expected[bitmap].tolist(), strict=True)}) == count
    assert found.max() == count


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12))
def test_no_angle_has_a_smaller_rectangle(points: list[tuple[int, int]]) -> None:
    found = smallest_rectangle(points)
    x, y = np.array(points, float).T
    for angle in np.linspace(0, np.pi / 2, 91):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        assert found.length * found.width <= np.ptp(along) * np.ptp(across) + 1e-6
    assert found.inside(y, x).all()


def turned(size: tuple[int, int], middle: tuple[float, float], sides: tuple[float, float], degrees: float) -> Array:
    angle = np.deg2rad(degrees)
    rows, columns = np.mgrid[: size[0], : size[1]]
    found = Rectangle(middle, (float(np.cos(angle)), float(np.sin(angle))), *sides)
    return found.inside(rows, columns)


def boxes_of(maps: Array, views: list[View], **options: Any) -> dict[str, Ragged]:
    head = TextBoxes(options, {"map": Tensor("float32", ("N", 1, "h", "w"))}, None)
    found = head.decode({"map": maps}, views)
    assert {name: (tensor.dtype, tensor.ragged) for name, tensor in head.plan().items()} == {
        name: (value.values.dtype.name, True) for name, value in found.items() if isinstance(value, Ragged)
    }
    return {name: value for name, value in found.items() if isinstance(value, Ragged)}


def test_lines_are_found_in_reading_order_and_grown() -> None:
    """Two lines beside each other and a turned one below, of a picture at half the source's size; one is faint."""
    size = (80, 120)
    shapes = [
        turned(size, (90, 14), (40, 10), 0),
        turned(size, (30, 16), (40, 10), 0),
        turned(size, (60, 50), (60, 8), 10),
    ]
    faint = turned(size, (20, 70), (20, 6), 0)
    map_ = np.max([*(0.9 * each for each in shapes), 0.4 * faint], axis=0).astype(np.float32)
    map_[60, 100] = 1  # one pixel is no line
    found = boxes_of(map_[None, None], [View((160, 240), size, size)], dilate=False)
    assert found["corners"].offsets.tolist() == [0, 3]
    by = [1.6 * length * width / (2 * (length + width)) for length, width in ((40, 10), (40, 10), (60, 8))]
    for corners, middle, sides, grown in zip(
        found["corners"].values, [(30, 16), (90, 14), (60, 50)], [(40, 10), (40, 10), (60, 8)], by, strict=True
    ):
        np.testing.assert_allclose(corners.mean(0), 2 * np.array(middle), atol=2)
        lengths = [np.hypot(*(corners[n] - corners[n - 1])) for n in (1, 2)]
        np.testing.assert_allclose(lengths, [2 * (side + 2 * grown) for side in sides], atol=5)
        assert (corners == np.rint(corners)).all()
        assert corners[0].sum() == corners.sum(1).min()
    np.testing.assert_allclose(found["scores"].values, 0.9, atol=0.02)
    np.testing.assert_array_equal(found["boxes"].values[:, :2], found["corners"].values.min(1))


@pytest.mark.parametrize("degrees", [-10.0, -5.0, 0.0, 3.0, 5.0, 10.0])
def test_rows_of_a_turned_page_are_read_along_its_lines(degrees: float) -> None:
    """Two columns of four lines each, turned as a whole, and a short line across: row by row, left before right."""
    size, middle = (400, 600), np.array([300, 200])
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = [(x, y) for y in (80, 150, 220, 290) for x in (130, 470)]
    wanted = [turn @ (np.array(place) - middle) + middle for place in places]
    map_ = np.zeros(size, np.float32)
    for x, y in wanted:
        map_[turned(size, (float(x), float(y)), (200, 14), degrees)] = 0.9
    map_[turned(size, (300, 200), (30, 12), degrees + 80)] = 0.9
    found = boxes_of(map_[None, None], [View(size, size, size)])["corners"].values.mean(axis=1)
    read = [line for line in found if np.hypot(*(line - middle)) > 30]
    np.testing.assert_allclose(read, wanted, atol=4)


def test_a_row_depends_on_its_own_map_and_may_be_empty() -> None:
    size = (40, 60)
    first, none = turned(size, (30, 20), (30, 8), 5).astype(np.float32), np.zeros(size, np.float32)
    views = [View(size, size, size)] * 3
    found = boxes_of(np.stack([first, none, first])[:, None], views)
    assert found["corners"].offsets.tolist() == [0, 1, 1, 2]
    alone = boxes_of(first[None, None], views[:1])
    np.testing.assert_array_equal(found["corners"].row(2), alone["corners"].row(0))
    assert boxes_of(np.stack([none])[:, None], views[:1])["boxes"].values.shape == (0, 4)


def test_noise_has_at_most_so_many_lines() -> None:
    size = (300, 400)
    noise = np.random.default_rng(3).random((1, 1, *size)).astype(np.float32)
    assert len(boxes_of(noise, [View(size, size, size)], max=50)["boxes"].values) <= 50


CHARACTERS = ("a", "b", "ü", "中", " ")


def greedy(scores: Array) -> tuple[str, float]:
    """The best path in plain Python."""
    best = [max(range(len(row)), key=lambda number: row[number]) for row in scores.tolist()]
    kept, before = [], 0
    for label, row in zip(best, scores.tolist(), strict=True):
        if label and label != before:
            kept.append((CHARACTERS[label - 1], row[label]))
        before = label
    return "".join(each for each, _ in kept), sum(score for _, score in kept) / max(1, len(kept))


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(0, 999))
def test_text_is_that_of_the_best_path(length: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((4, length, 6), dtype=np.float32)
    scores[3] = 0
    scores[3, :, 0] = 1
    head = Text({"labels": CHARACTERS, "longest": 32}, {"o": Tensor("float32", ("N", "T", 6))}, None)
    assert head.plan()["text"] == Tensor("int32", ("N", 32), labels=CHARACTERS)
    found = head.decode({"o": scores}, ())
    assert isinstance(found["text"], np.ndarray)
    for numbers, score, row in zip(found["text"].tolist(), found["scores"], scores, strict=True):
        text, mean = greedy(row)
        end = numbers.index(-1)
        assert "".join(CHARACTERS[number] for number in numbers[:end]) == text
        assert set(numbers[end:]) == {-1}
        assert score == pytest.approx(mean, abs=1e-6)
    short = Text({"labels": CHARACTERS, "longest": 2}, {"o": Tensor("float32", ("N", "T", 6))}, None)
    np.testing.assert_array_equal(short.decode({"o": scores}, ())["text"], found["text"][:, :2])


@pytest.mark.parametrize(
    ("head", "options", "shape", "text"),
    [
        (Text, {"labels": CHARACTERS}, ("N", "T", 7), "with 5 labels and a blank"),
        (Text, {"labels": CHARACTERS}, ("N", 6), "it reads"),
        (TextBoxes, {}, ("N", 3, "h", "w"), "it reads a map"),
        (TextBoxes, {"unclip": -1}, ("N", 1, "h", "w"), "unclip"),
    ],
)
def test_what_heads_refuse(head: Any, options: dict[str, Any], shape: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        head(options, {"o": Tensor("float32", shape)}, None)


def test_lines_upside_down_begin_with_their_other_corner() -> None:
    corners = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    offsets = np.array([0, 2, 3])
    job = JobRef(id="j", pipeline="p", revision="r")
    meta = PartMeta(key=Key(job=job, segment=0), media=MediaInfo(kind="video"), pts=(0, 1))
    arrays = {
        "corners": Ragged(corners, offsets),
        "classes": Ragged(np.array([[1], [0], [1]], np.int32), offsets),
        "scores": Ragged(np.array([[0.95], [0.99], [0.89]], np.float32), offsets),
    }
    stage = OperatorStage(kind="turn", name="turn")
    made = Turn(stage, None).apply(Part(meta, arrays))["corners"]
    assert isinstance(made, Ragged)
    np.testing.assert_array_equal(made.values, np.stack([corners[0][[2, 3, 0, 1]], corners[1], corners[2]]))
    with pytest.raises(PipelineError, match="wants `classes`"):
        Turn(stage, None).plan({"corners": Tensor("float32", ("W", "count", 4, 2), ragged=True)})
