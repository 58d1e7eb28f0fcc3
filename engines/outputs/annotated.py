"""annotated: what models found, drawn on the video or the picture it was found in.

Drawn are `boxes` with `classes`, `scores`, `keypoints`, `corners` and `masks` (see engines.outputs.objects), the `mask`
of segmentation, and the labels and scores of `classes` or `tags` of a whole picture. The pictures are `plane0` ... or
`pixels`, as in `video`; coordinates are those of the source, and are scaled to the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from engines.outputs.base import BaseFormat, Value, row_of
from engines.outputs.colour import check_pictures, picture_planes
from engines.outputs.draw import BLACK, WHITE, Canvas, Point, Rgb, channel_paint, class_colour, text_colour, ycbcr_paint
from engines.outputs.h264 import X264
from engines.outputs.image import PictureOptions
from engines.outputs.images import Channels, ImageFolder, channels_of, encode_images
from engines.outputs.masks import box_pixels, placed_mask
from engines.outputs.mux import VideoFile
from engines.outputs.objects import Objects, check_objects, label_of, objects_of, source_sizes
from engines.outputs.pictures import encode_file
from engines.outputs.text import one_line
from engines.part import Array, Part, Tick, no_tick
from engines.ports import Assembler, Encoded, Pictures
from schemas.errors import PipelineError
from schemas.messages import MediaInfo
from schemas.pipeline import TensorSpec

_NAME = "annotated"
_DRAWN = ("boxes", "mask", "classes", "tags")
_MASK = 110  # of 255: how much a mask covers what is below
_PAPER = 150  # behind the labels of a whole picture
_MOST_LINES = 12  # labels of a whole picture
# Which of the 17 keypoints of COCO are joined, https://cocodataset.org/#format-data, counted from 0
_COCO_JOINTS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


class AnnotatedOptions(PictureOptions):
    """Those of `image`, and what to write: `labels` and `scores`; keypoints below `least_score` are not drawn."""

    labels: bool = True
    scores: bool = True
    least_score: float = 0.3


class AnnotatedFormat(BaseFormat[AnnotatedOptions]):
    """H.264 of video with the source's sound, a file of each image."""

    options_class = AnnotatedOptions

    @property
    def sound(self) -> Literal["copy", "aac"]:
        """What the options say."""
        return self._options.sound

    def check(self, arrays: Mapping[str, TensorSpec], media: Sequence[str]) -> None:
        """Pictures, and something to draw on them."""
        check_pictures(arrays, media, _NAME)
        if not any(name in arrays for name in _DRAWN):
            names = ", ".join(f"`{name}`" for name in _DRAWN)
            what = f"format annotated needs one of {names} to draw"
            raise PipelineError(what, "take a model whose card has a head that makes one, or add `keeps`")
        if "boxes" in arrays:
            check_objects(arrays, _NAME)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """A closed GOP of the part's pictures, or a file of each image."""
        options = self._options
        findings = self._findings(part)
        if part.meta.media.kind == "image":
            pairs = zip(channels_of(part, _NAME), findings, strict=True)
            pictures = (_drawn(picture, finding) for picture, finding in pairs)
            return encode_images(pictures, lambda each: encode_file(each, options.file, options.quality), tick)
        if not part.meta.pts:
            return Encoded({})
        planes, colour = picture_planes(part)
        drawn = [np.array(plane) for plane in planes]
        paint = ycbcr_paint(colour, drawn[0].shape[1])
        for number, finding in enumerate(findings):
            finding.draw(Canvas([plane[number] for plane in drawn], paint))
            tick()
        return (self._encoder or X264()).encode(Pictures(drawn, colour, part.meta.media), options, tick)

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """`<target>.mp4`, begun with the first part, or the folder `<target>` of images."""
        return ImageFolder(target, self._options.suffix) if media.kind == "image" else VideoFile(target, media)

    def _findings(self, part: Part) -> Iterator["_Finding"]:
        """What to draw on the picture of each window."""
        held: Mapping[str, Value] = part.arrays
        objects = objects_of(part, _NAME) if "boxes" in held else iter([None] * len(part.meta.pts))
        for number, (size, found) in enumerate(zip(source_sizes(part), objects, strict=True)):
            rows = {name: row_of(held[name], number) for name in ("mask", "classes", "tags", "scores") if name in held}
            yield _Finding(size, found, rows, self._labels, self._options)


def _drawn(picture: Channels, finding: "_Finding") -> Channels:
    """A copy of a picture with what was found in it."""
    if isinstance(picture, np.ndarray):
        picture = (picture,) if picture.ndim == 2 else tuple(picture[..., n] for n in range(picture.shape[2]))
    channels = tuple(np.array(channel) for channel in picture)
    finding.draw(Canvas(channels, channel_paint(len(channels))))
    return channels[0] if len(channels) == 1 else channels


class _Finding:
    """What was found in one picture, `rows` being those of the arrays that are about all of it."""

    def __init__(
        self,
        source: tuple[int, int],
        objects: Objects | None,
        rows: Mapping[str, Array],
        labels: Mapping[str, tuple[str, ...]],
        options: AnnotatedOptions,
    ) -> None:
        self._source = source
        self._objects = objects
        self._rows = rows
        self._labels = labels
        self._options = options

    def draw(self, canvas: Canvas) -> None:
        """Draws all of it."""
        if "mask" in self._rows:
            self._draw_classes(canvas, self._rows["mask"])
        if self._objects is not None:
            self._draw_objects(canvas, self._scaled(self._objects, canvas))
        else:
            self._draw_labels(canvas)

    def _scaled(self, found: Objects, canvas: Canvas) -> Objects:
        """The objects in pixels of the canvas."""
        height, width = self._source
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
        )

    def _draw_classes(self, canvas: Canvas, mask: Array) -> None:
        """A mask of class numbers, as large as the canvas or stretched to it. The background is left as it is."""
        names = self._labels.get("mask", ())
        kept = names and "background" not in names[0]  # of a mask without labels, 0 is the background, too
        colours: list[Rgb | None] = [class_colour(number) for number in range(256)]
        colours[0] = colours[0] if kept else None
        if mask.shape != (canvas.height, canvas.width):
            stretched = Image.fromarray(mask).resize((canvas.width, canvas.height), Image.Resampling.NEAREST)
            mask = np.asarray(stretched)
        canvas.tint(mask, colours, _MASK)

    def _draw_objects(self, canvas: Canvas, found: Objects) -> None:
        numbers = range(len(found.boxes))[::-1]  # the surest is drawn last, over the others
        colours = [
            class_colour(0 if found.classes is None else int(found.classes[number]))
            for number in range(len(found.boxes))
        ]
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
        for number in numbers:
            left, top, _, _ = _corners(canvas, found.boxes[number])
            _draw_label(canvas, top, left, self._object_text(found, number), colours[number])

    def _object_text(self, found: Objects, number: int) -> str:
        words = []
        if self._options.labels and found.classes is not None:
            words.append(label_of(self._labels.get("classes", ()), int(found.classes[number])))
        if self._options.scores and found.scores is not None:
            words.append(f"{found.scores[number]:.2f}")
        return " ".join(words)

    def _draw_keypoints(self, canvas: Canvas, keypoints: Array, colour: Rgb) -> None:
        sure = keypoints[:, 2] >= self._options.least_score
        points: list[Point] = [(x, y) for x, y, _ in keypoints.tolist()]
        for start, end in _COCO_JOINTS if len(points) == 17 else ():
            if sure[start] and sure[end]:
                canvas.polyline([points[start], points[end]], colour)
        for point, seen in zip(points, sure, strict=True):
            if seen:
                canvas.dot(point, WHITE)

    def _draw_labels(self, canvas: Canvas) -> None:
        """The classes or tags of the whole picture, one below the other in its corner."""
        name = "tags" if "tags" in self._rows else "classes"
        numbers, scores = self._rows.get(name), self._rows.get("scores")
        if numbers is None or not self._options.labels:
            return
        height, _ = canvas.text_box("")
        pad = height // 4
        for line, number in enumerate(np.atleast_1d(numbers)[:_MOST_LINES].tolist()):
            text = label_of(self._labels.get(name, ()), int(number))
            if scores is not None and self._options.scores:
                text = f"{text} {np.atleast_1d(scores)[line]:.2f}"
            text = one_line(text, canvas.text_size, canvas.width - 4 * pad)
            top, (_, width) = pad + line * height, canvas.text_box(text)
            canvas.rectangle(top, pad, top + height, 3 * pad + width, BLACK, _PAPER)
            canvas.text(top, 2 * pad, text, WHITE)


def _corners(canvas: Canvas, box: Array) -> list[int]:
    """Left, top, right and bottom of a box, in pixels where samples of all planes begin."""
    return [canvas.snapped(value) for value in box_pixels(box, canvas.height, canvas.width)]


def _draw_label(canvas: Canvas, top: int, left: int, text: str, colour: Rgb) -> None:
    """A label above the upper left corner of a box, or inside where there is no room above."""
    if not text:
        return
    text = one_line(text, canvas.text_size, canvas.width)
    height, width = canvas.text_box(text)
    pad = canvas.snapped(height // 6)
    left = max(0, canvas.snapped(min(left, canvas.width - width - 2 * pad)))
    top = top - height if top >= height else max(top, 0)
    canvas.rectangle(top, left, top + height, left + width + 2 * pad, colour)
    canvas.text(top, left + pad, text, text_colour(colour))
