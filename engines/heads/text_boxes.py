"""text_boxes: a map of how probably a pixel is text -> the lines of text, as quadrilaterals in reading order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from engines.heads.base import Count, HeadOptions, Share, chosen_output, dense, parse_options
from engines.heads.regions import Rectangle, clockwise, grown, rectangles, smallest_rectangle
from engines.heads.view import View, WayBack
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.picture import PictureSpec

_LEAST = 3.0  # pixels of the map: the least side of a region; of one that was grown 2 more, in the source 1 more
_LINE = 10.0  # pixels of the source: upper left corners that differ less in height are of one line


class TextBoxOptions(HeadOptions):
    """`threshold` of a pixel; `box_threshold` of the mean in a rectangle; `unclip`: by what share of area over
    circumference a rectangle grows; `dilate`: by one pixel up and left before regions are found; `max`: the most lines.
    """

    output: str = ""
    threshold: Share = 0.3
    box_threshold: Share = 0.5
    unclip: float = Field(default=1.6, ge=0, le=10)
    dilate: bool = True
    max: Count = 1000


class TextBoxes:
    """Reads `[N, 1, h, w]` or `[N, h, w]`, as large as the picture. Gives of each line `corners [M, 4, 2]` float32,
    clockwise from the upper left one, and `boxes [M, 4]` float32 around them, in whole pixels of the source; `scores
    [M]` float32, the mean of the map in the rectangle.

    Lines are in reading order: from top to bottom, and from left to right where their upper left corners are less than
    10 pixels apart in height; of a page that is turned, along and across its lines. Source: PaddleOCR,
    ppocr/postprocess/db_postprocess.py, and tools/infer/predict_det.py and predict_system.py, with `findContours`,
    `minAreaRect` and the offset of a polygon replaced (a rectangle that grows with round joins, and the smallest one
    around that, is the rectangle with its sides moved), and without turned pages.
    """

    Options = TextBoxOptions
    by_source, needs_view = False, True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(TextBoxOptions, options, "head text_boxes")
        self.reads = (chosen_output(outputs, self._options.output, "head text_boxes"),)
        shape = outputs[self.reads[0]].shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] not in (1,) and isinstance(shape[1], int)):
            raise ModelError(f"head text_boxes: output {self.reads[0]} is {list(shape)}", "it reads a map [N, 1, h, w]")

    def plan(self) -> dict[str, Tensor]:
        """`boxes`, `scores` and `corners`."""
        return {
            "boxes": Tensor("float32", ("N", "count", 4), ragged=True),
            "scores": Tensor("float32", ("N", "count"), ragged=True),
            "corners": Tensor("float32", ("N", "count", 4, 2), ragged=True),
        }

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        maps = np.asarray(dense(outputs[self.reads[0]], self.reads[0]), np.float32)
        maps = maps[:, 0] if maps.ndim == 4 else maps
        way_back = WayBack(views)
        rows = [self._lines(each, views[number], way_back, number) for number, each in enumerate(maps)]
        corners = Ragged.of([row[0] for row in rows])
        low, high = corners.values.min(axis=1), corners.values.max(axis=1)
        return {
            "boxes": Ragged(np.concatenate([low, high], axis=1), corners.offsets),
            "scores": Ragged.of([row[1] for row in rows]),
            "corners": corners,
        }

    def _lines(self, map_: Array, view: View, way_back: WayBack, number: int) -> tuple[Array, Array]:
        """Return corners `[M, 4, 2]` and scores `[M]` of one picture."""
        found: list[tuple[Array, float]] = []
        height, width = map_.shape
        scale = np.array([view.picture[1] / width, view.picture[0] / height])
        bitmap = map_ > self._options.threshold
        for rectangle in rectangles(_dilated(bitmap) if self._options.dilate else bitmap, _LEAST, self._options.max):
            score = _mean(map_, rectangle)
            sides = rectangle.length + rectangle.width
            by = self._options.unclip * rectangle.length * rectangle.width / (2 * sides)
            around = smallest_rectangle(grown([(int(x), int(y)) for x, y in rectangle.corners.tolist()], by))
            if score < self._options.box_threshold or min(around.length, around.width) < _LEAST + 2:
                continue
            corners = way_back.points(around.corners[None] * scale, np.array([number]))[0]
            corners = np.array(clockwise([(x, y) for x, y in np.rint(corners).tolist()]))
            if min(np.hypot(*(corners[0] - corners[side])) for side in (1, 3)) >= _LEAST + 1:
                found.append((corners, score))
        found = _in_reading_order(found)
        corners = np.array([corners for corners, _ in found], np.float32).reshape(-1, 4, 2)
        return corners, np.array([score for _, score in found], np.float32)


def _dilated(bitmap: Array) -> Array:
    """Set each pixel whose own, left, upper or upper left one is set: OpenCV's dilation by a 2 x 2 kernel of ones."""
    made = bitmap.copy()
    made[1:] |= bitmap[:-1]
    made[:, 1:] |= made[:, :-1].copy()
    return made


def _mean(map_: Array, rectangle: Rectangle) -> float:
    """Return the mean of a map in a rectangle."""
    corners = rectangle.corners
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    rows, columns = np.mgrid[max(top, 0) : min(bottom + 1, map_.shape[0]), max(left, 0) : min(right + 1, map_.shape[1])]
    inside = rectangle.inside(rows, columns)
    return float(map_[rows[inside], columns[inside]].mean(dtype=np.float64)) if inside.any() else 0.0


def _in_reading_order(found: list[tuple[Array, float]]) -> list[tuple[Array, float]]:
    """Return lines by height, and neighbours of almost equal height from left to right, in a page that is upright.

    A page that is turned is turned back first, by the direction of its lines.
    """
    along = _direction([corners for corners, _ in found])
    across = np.array([-along[1], along[0]])
    lines = [
        (float(corners[0] @ along), float(corners[0] @ across), number) for number, (corners, _) in enumerate(found)
    ]
    lines.sort(key=lambda line: (line[1], line[0]))
    for last in range(1, len(lines)):
        for place in range(last, 0, -1):
            before, after = lines[place - 1], lines[place]
            if after[1] - before[1] >= _LINE or after[0] >= before[0]:
                break
            lines[place - 1], lines[place] = after, before
    return [found[number] for _, _, number in lines]


def _direction(lines: list[Array]) -> Array:
    """Return the unit vector along which lines `[4, 2]` are written: the median by length of those wider than high.

    A page of which most lines are exactly horizontal is upright, whatever the others are.
    """
    sides = np.array([corners[1] - corners[0] for corners in lines]).reshape(-1, 2)
    heights = np.array([np.hypot(*(corners[3] - corners[0])) for corners in lines])
    lengths = np.hypot(*sides.T)
    if not (wide := lengths > heights).any():
        return np.array([1.0, 0.0])
    order = np.argsort(np.arctan2(sides[wide, 1], sides[wide, 0]))
    sides, lengths = sides[wide][order], lengths[wide][order]
    middle = np.searchsorted(np.cumsum(lengths), lengths.sum() / 2)
    return np.asarray(sides[middle] / lengths[middle])
