"""crop: frames and what a detector found in them -> pictures of one size of each face, object or line of text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, hypot
from typing import Annotated, Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field

from engines.geometry import Middle
from engines.inference.items import width_name
from engines.operators.base import BaseOperator
from engines.part import Array, Part, Value
from engines.planned import INDEX, Arrays, Tensor
from engines.ragged import Ragged
from engines.resizing import bilinear_resize
from engines.warp import (
    inverse,
    of_centres,
    product,
    quadrilateral,
    scaled,
    side_of,
    similarity,
    template_of,
    to_bytes,
    warped,
)
from schemas.declared import Spec
from schemas.errors import PipelineError
from schemas.picture import Byte, Side

FRAMES, CROPS, MATRICES = "pixels", "crops", "crop_matrix"
OBJECTS = ("boxes", "scores", "classes", "keypoints", "corners", "masks")
# places of eyes, nose and corners of the mouth in the pictures of FFHQ, as shares of the side; in pixels of 512 in
# TencentARC/GFPGAN, facexlib/utils/face_restoration_helper.py
_FFHQ = (
    (0.37691676, 0.46864664),
    (0.62285697, 0.46912813),
    (0.50123859, 0.61331904),
    (0.39308822, 0.72541100),
    (0.61150205, 0.72490465),
)
_TALL = 1.5  # times as high as wide: a line of text that is written downwards


_Place: TypeAlias = Annotated[float, Field(ge=-1, le=2)]  # outside of the picture too


class CropOptions(Spec):
    """`by`: what is cut out. `keypoints` are brought to `template` by the similarity of least squares; `corners` are
    made a rectangle; `boxes` are stretched.

    `size`: (height, width) of the pictures. `template`: as many places as there are keypoints, x and y as shares of the
    sides, or "ffhq" for five of a face. `border`: colour outside of the frame. `widths`: with `corners`, pictures keep
    their shape; each is padded right with `pad_value` to a multiple of `width_step`, at least to the first of these
    widths, and squeezed to the second if it is longer. Objects whose score is under `least_score`, or whose picture
    covers less than a square with the side `least_side` of the frame, are left out. `averages`: areas of the frame are
    averaged where the picture is half as large or less; with `averages = false` pixels are left out, as in OpenCV.
    """

    by: Literal["keypoints", "corners", "boxes"] = "keypoints"
    size: tuple[Side, Side]
    template: Literal["ffhq"] | tuple[tuple[_Place, _Place], ...] = "ffhq"
    border: tuple[Byte, Byte, Byte] = (0, 0, 0)
    widths: tuple[Side, Side] | None = None
    width_step: Side = 16
    pad_value: Byte = 0
    least_score: float = Field(default=0.0, ge=0, le=1)
    least_side: float = Field(default=1.0, ge=1, le=65_535)
    averages: bool = True


@dataclass(frozen=True, slots=True)
class _Cut:
    """One picture, its width without padding, and the matrix from its places to those of the frame."""

    number: int
    pixels: Array
    width: int
    matrix: Array


class Crop(BaseOperator[CropOptions]):
    """Reads `pixels` and the arrays of a detecting head; coordinates are pixels of the source.

    Gives `crops [M, h, w, 3]` uint8 and `crop_matrix [M, 3, 3]` float64, from shares of a crop's sides to places of its
    frame, with `widths` also `crops_width [M]` int32; and the arrays of objects that there are, without those left out.
    """

    options_class = CropOptions

    def plan(self, inputs: Arrays) -> Arrays:
        """`crops`, `crop_matrix` and the objects."""
        options, by = self._options, self._options.by
        if not {FRAMES, INDEX} <= inputs.keys() or len(inputs[FRAMES].shape) != 4:
            hint = f'put a resize stage of its own size before, and keeps = ["{FRAMES}", "{INDEX}"] at those between'
            what = f"stage `{self._stage.name}` wants the frames in colour, `{FRAMES}` and `{INDEX}`"
            raise PipelineError(what, hint)
        if inputs[INDEX].shape[1] != 1:
            raise PipelineError(f"stage `{self._stage.name}` cuts single frames, not windows", "leave out `window`")
        if by not in inputs or not inputs[by].ragged:
            raise PipelineError(f"stage `{self._stage.name}` wants `{by}` of a head", f"there is {', '.join(inputs)}")
        points = inputs[by].shape[2]
        if by == "keypoints" and isinstance(points, int) and points != len(self._template):
            what = f"stage `{self._stage.name}`: {points} keypoints for {len(self._template)} places of the template"
            raise PipelineError(what, "write template = [[x, y], ...], one for each keypoint")
        if options.widths and by != "corners":
            raise PipelineError(f"stage `{self._stage.name}`: widths are for corners", "leave them out")
        height, width = options.size
        made: Arrays = {
            CROPS: Tensor("uint8", ("W", "count", height, "width" if options.widths else width, 3), ragged=True),
            MATRICES: Tensor("float64", ("W", "count", 3, 3), ragged=True),
            **{name: inputs[name] for name in OBJECTS if name in inputs and inputs[name].ragged},
        }
        if options.widths:
            made[width_name(CROPS)] = Tensor("int32", ("W", "count"), ragged=True)
        return made

    def apply(self, part: Part) -> Mapping[str, Value]:
        """See the class."""
        frames, rows = part.array(FRAMES), part.array(INDEX)[:, 0]
        objects = {name: value for name in OBJECTS if isinstance(value := part.arrays.get(name), Ragged)}
        found = objects.get(self._options.by)
        if found is None:
            raise PipelineError(f"stage `{self._stage.name}`: a part has no `{self._options.by}`", "correct the model")
        cuts: list[_Cut] = []
        counts = [0]
        for window, row in enumerate(rows.tolist()):
            cuts += self._cuts(frames[row], found, objects.get("scores"), window)
            counts.append(len(cuts))
        offsets = np.array(counts, np.int64)
        numbers = np.array([cut.number for cut in cuts], np.int64)
        widths = [self._padded(cut.width) for cut in cuts]
        canvas = self._options.size[0], max(widths, default=self._padded(1))
        pixels = np.full((len(cuts), *canvas, 3), self._options.pad_value, np.uint8)
        for out, cut in zip(pixels, cuts, strict=True):
            out[:, : cut.pixels.shape[1]] = cut.pixels
        shares = (product(cut.matrix, scaled(cut.width, cut.pixels.shape[0])) for cut in cuts)
        matrices = np.array(list(shares), np.float64).reshape(-1, 3, 3)
        made: dict[str, Value] = {CROPS: Ragged(pixels, offsets), MATRICES: Ragged(matrices, offsets)}
        if self._options.widths:
            made[width_name(CROPS)] = Ragged(np.array(widths, np.int32), offsets)
        return made | {name: Ragged(value.values[numbers], offsets) for name, value in objects.items()}

    @property
    def _template(self) -> tuple[tuple[_Place, _Place], ...]:
        return _FFHQ if self._options.template == "ffhq" else self._options.template

    def _padded(self, width: int) -> int:
        """Return the width to which a picture of `width` is padded."""
        if self._options.widths is None:
            return self._options.size[1]
        least, most = self._options.widths
        step = self._options.width_step
        return min(most, max(least, -(-width // step) * step))

    def _cuts(self, frame: Array, found: Ragged, scores: Ragged | None, window: int) -> Iterator[_Cut]:
        """Yield the pictures of one window that are not left out."""
        first = int(found.offsets[window])
        for number, place in enumerate(found.row(window), first):
            if scores is not None and scores.values[number] < self._options.least_score:
                continue
            if not np.isfinite(place).all():
                continue
            cut = self._by_corners(frame, place) if self._options.by == "corners" else self._by_matrix(frame, place)
            if cut is not None and side_of(cut[1], (cut[0].shape[0], cut[0].shape[1])) >= self._options.least_side:
                yield _Cut(number, cut[0], cut[0].shape[1], cut[1])

    def _by_matrix(self, frame: Array, place: Array) -> tuple[Array, Array] | None:
        """Return the picture of keypoints or of a box, and its matrix."""
        size = self._options.size
        if self._options.by == "boxes":
            left, top, right, bottom = place.tolist()
            if right <= left or bottom <= top:
                return None
            step = scaled((right - left) / size[1], (bottom - top) / size[0])
            matrix = product(np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64), step)
        else:
            there = similarity(place[:, :2], template_of(self._template, size))
            if there is None:
                return None
            matrix = of_centres(inverse(there))  # points of detectors and of templates are centres, as OpenCV has them
        return to_bytes(self._warped(frame, matrix, size)), matrix

    def _warped(
        self, frame: Array, matrix: Array, size: tuple[int, int], by: Image.Resampling = Image.Resampling.BILINEAR
    ) -> Array:
        return warped(frame, matrix, size, self._options.border, by, averages=self._options.averages)

    def _by_corners(self, frame: Array, corners: Array) -> tuple[Array, Array] | None:
        """Return the picture of a quadrilateral, and its matrix: first in the frame's scale, then in its height.

        One that is much higher than wide is turned by 90 degrees. Source: PaddleOCR, tools/infer/utility.py and
        predict_rec.py.
        """
        most = 2 * sum(frame.shape[:2])  # a quadrilateral from elsewhere may reach far beyond the frame
        width, height = (min(side, most) for side in _sides(corners))
        if height >= _TALL * width:
            corners = np.roll(corners, -1, axis=0)
            width, height = height, width
        matrix = quadrilateral(corners, (height, width))
        if matrix is None:
            return None
        matrix, high, wide = of_centres(matrix), *self._options.size
        upright = to_bytes(self._warped(frame, matrix, (height, width), Image.Resampling.BICUBIC))
        if self._options.widths:
            least, most = self._options.widths
            wide = ceil(high * width / height)
            wide = wide if wide <= least else min(high * width // height, most)
        made = bilinear_resize(upright, (high, wide), Middle((0, 0), (high, wide)))
        return made, product(matrix, scaled(width / wide, height / high))


def _sides(corners: Array) -> tuple[int, int]:
    """Return width and height of a quadrilateral, its longer opposite sides, in whole pixels."""
    lengths = [hypot(*(corners[number] - corners[(number + 1) % 4]).tolist()) for number in range(4)]
    return max(1, int(max(lengths[0], lengths[2]))), max(1, int(max(lengths[1], lengths[3])))
