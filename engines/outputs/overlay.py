"""Draws the results of one picture on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engines.outputs.base import Labels
from engines.outputs.draw import BLACK, GRAY, WHITE, Canvas, Point, Rgb, class_colour, text_colour
from engines.outputs.masks import box_pixels, placed_mask
from engines.outputs.objects import Objects, label_of, text_of
from engines.outputs.text import one_line
from engines.part import Array

DRAWN = ("boxes", "mask", "classes", "tags")  # at least one of these arrays is drawn
_MASK = 110  # of 255: the opacity of a mask
_PAPER = 150  # opacity behind the labels of a whole picture
_MOST_LINES = 12  # the most labels of a whole picture
_APART = 64  # so many labels of a picture are kept apart: with more there is no place
# The pairs of COCO's 17 keypoints that are joined, https://cocodataset.org/#format-data, counted from 0
_COCO_JOINTS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """The texts to write beside the drawing; keypoints with a score below `least_score` are left out."""

    labels: bool = True
    scores: bool = True
    least_score: float = 0.3


@dataclass(frozen=True, slots=True)
class Finding:
    """The results of one picture of a source of that height and width (0: that of the picture).

    `rows` are those of the arrays about the whole picture: `mask`, `classes`, `tags`, `scores`.
    """

    source: tuple[int, int]
    objects: Objects | None
    rows: Mapping[str, Array]
    labels: Labels
    wanted: Wanted

    def draw(self, canvas: Canvas) -> None:
        """Draw all of it."""
        if "mask" in self.rows:
            self._draw_classes(canvas, self.rows["mask"])
        if self.objects is not None:
            self._draw_objects(canvas, self._scaled(self.objects, canvas))
        else:
            self._draw_labels(canvas)

    def _scaled(self, found: Objects, canvas: Canvas) -> Objects:
        """Return the objects in pixels of the canvas."""
        height, width = self.source
        if not (height and width) or (height, width) == (canvas.height, canvas.width):
            return found
        x, y = canvas.width / width, canvas.height / height
        return Objects(
            found.boxes * np.array([x, y, x, y]),
            found.scores,
            found.classes,
            None if found.keypoints is None else found.keypoints * np.array([x, y, 1]),
            None if found.corners is None else found.corners * np.array([x, y]),
            found.masks,
            found.text,
            found.tracks,
        )

    def _draw_classes(self, canvas: Canvas, mask: Array) -> None:
        """Draw a mask of class numbers, as large as the canvas or stretched to it. The background is unchanged."""
        names = self.labels.get("mask", ())
        # in a mask with at most one label, 0 is the background, too
        kept = len(names) > 1 and "background" not in names[0]
        colours = (class_colour(0) if kept else None, *(class_colour(number) for number in range(1, 256)))
        if mask.shape != (canvas.height, canvas.width):
            stretched = Image.fromarray(mask).resize((canvas.width, canvas.height), Image.Resampling.NEAREST)
            mask = np.asarray(stretched)
        canvas.tint(mask, colours, _MASK)

    def _draw_objects(self, canvas: Canvas, found: Objects) -> None:
        numbers = list(range(len(found.boxes))[::-1])  # the highest score is drawn last, over the others
        if (tracks := found.tracks) is not None:
            numbers.sort(key=lambda number: bool(tracks[number]))  # and what has a number, over what has none
        colours = [_object_colour(found, number) for number in range(len(found.boxes))]
        if found.masks is not None:
            for number in numbers:
                region = placed_mask(found.masks[number], found.boxes[number], canvas.height, canvas.width)
                canvas.blend(region.top, region.left, region.inside * np.uint8(_MASK), colours[number])
        for number in numbers:
            left, top, right, bottom = _corners(canvas, found.boxes[number])
            if found.corners is not None:
                canvas.polyline(found.corners[number].tolist(), colours[number], closed=True)
            else:
                canvas.outline(top, left, bottom, right, colours[number])
            if found.keypoints is not None:
                self._draw_keypoints(canvas, found.keypoints[number], colours[number])
        taken: list[_Label] = []
        for number in reversed(numbers):
            if text := self._object_text(found, number):
                taken.append(_placed_label(canvas, _corners(canvas, found.boxes[number]), text, colours[number], taken))
        for label in reversed(taken):
            label.draw(canvas)

    def _object_text(self, found: Objects, number: int) -> str:
        words = [f"#{found.tracks[number]}"] if found.tracks is not None and found.tracks[number] else []
        if self.wanted.labels and found.classes is not None:
            words.append(label_of(self.labels.get("classes", ()), int(found.classes[number])))
        if self.wanted.labels and found.text is not None:
            words.append(text_of(self.labels.get("text", ()), found.text[number]))
        if self.wanted.scores and found.scores is not None:
            words.append(f"{found.scores[number]:.2f}")
        return " ".join(words)

    def _draw_keypoints(self, canvas: Canvas, keypoints: Array, colour: Rgb) -> None:
        sure = keypoints[:, 2] >= self.wanted.least_score
        points: list[Point] = [(x, y) for x, y, _ in keypoints.tolist()]
        for start, end in _COCO_JOINTS if len(points) == 17 else ():
            if sure[start] and sure[end]:
                canvas.polyline([points[start], points[end]], colour)
        for point, seen in zip(points, sure, strict=True):
            if seen:
                canvas.dot(point, WHITE)

    def _draw_labels(self, canvas: Canvas) -> None:
        """Draw the classes or tags of the whole picture, one below the other in its corner."""
        name = "tags" if "tags" in self.rows else "classes"
        numbers, scores = self.rows.get(name), self.rows.get("scores")
        if numbers is None or not self.wanted.labels:
            return
        height, _ = canvas.text_box("")
        pad = height // 4
        for line, number in enumerate(np.atleast_1d(numbers)[:_MOST_LINES].tolist()):
            text = label_of(self.labels.get(name, ()), int(number))
            if scores is not None and self.wanted.scores:
                text = f"{text} {np.atleast_1d(scores)[line]:.2f}"
            text = one_line(text, canvas.text_size, canvas.width - 4 * pad)
            top, (_, width) = pad + line * height, canvas.text_box(text)
            canvas.rectangle(top, pad, top + height, 3 * pad + width, BLACK, _PAPER)
            canvas.text(top, 2 * pad, text, WHITE)


def _object_colour(found: Objects, number: int) -> Rgb:
    """Return the colour of an object: of its track, else of its class; gray beside tracks if it has none."""
    if found.tracks is not None:
        track = int(found.tracks[number])
        return class_colour(track - 1) if track else GRAY
    return class_colour(0 if found.classes is None else int(found.classes[number]))


def _corners(canvas: Canvas, box: Array) -> list[int]:
    """Return left, top, right and bottom of a box, in pixels where samples of all planes begin."""
    return [canvas.snapped(value) for value in box_pixels(box, canvas.height, canvas.width)]


@dataclass(frozen=True, slots=True)
class _Label:
    """A line of text on paper of a colour; all in pixels."""

    top: int
    left: int
    height: int
    width: int
    text: str
    colour: Rgb

    def covers(self, top: int, left: int, height: int, width: int) -> bool:
        """Whether it has pixels of a rectangle."""
        beside = left >= self.left + self.width or left + width <= self.left
        return not beside and top < self.top + self.height and top + height > self.top

    def draw(self, canvas: Canvas) -> None:
        canvas.rectangle(self.top, self.left, self.top + self.height, self.left + self.width, self.colour)
        canvas.text(self.top, self.left + _label_pad(canvas, self.height), self.text, text_colour(self.colour))


def _label_pad(canvas: Canvas, height: int) -> int:
    return canvas.snapped(height // 6)


def _placed_label(canvas: Canvas, corners: list[int], text: str, colour: Rgb, taken: Sequence[_Label]) -> _Label:
    """The label of a box at the first place without others: above its upper left corner, inside, below, inside below.

    Without such a place: above, or inside if there is no space above.
    """
    text = one_line(text, canvas.text_size, canvas.width)
    height, width = canvas.text_box(text)
    width += 2 * _label_pad(canvas, height)
    left, top, _, bottom = corners
    left = max(0, canvas.snapped(min(left, canvas.width - width)))
    tops = [
        each for each in (top - height, max(top, 0), bottom, bottom - height) if 0 <= each <= canvas.height - height
    ]
    if len(taken) >= _APART:
        tops = []
    free = (each for each in tops if not any(other.covers(each, left, height, width) for other in taken))
    usual = top - height if top >= height else max(top, 0)
    return _Label(next(free, usual), left, height, width, text, colour)
