"""paste: pictures that a model made of crops -> the frames with these in their places, with soft edges."""

from collections.abc import Mapping
from functools import lru_cache
from math import erf, sqrt

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field

from engines.operators.base import BaseOperator
from engines.operators.crop import FRAMES, MATRICES
from engines.operators.scale import resized
from engines.part import Array, Part, Value
from engines.planned import INDEX, SOURCE_SIZE, Arrays, Tensor
from engines.ragged import Ragged
from engines.warp import inverse, moved, product, region, scaled, to_bytes, warped
from schemas.declared import Spec
from schemas.errors import PipelineError
from schemas.picture import Byte

PICTURES, CLASSES, LARGER = "image", "mask", "larger"
_SIGMA = 0.3  # of the blur, in units of `edge`: what OpenCV takes for a kernel of twice `edge`
_PARSED_SIGMA = 15.6 / 512  # of a mask of classes: two blurs of sigma 11, in shares of the side
_UNIT = (1, 1)


class PasteOptions(Spec):
    """`factor`: how many times as large as the frames the result is; these are resized by Lanczos. `edge`: the share of
    a crop's side at which its mask is a half; outside of the crop it is 0. `amount`: how much of a crop is mixed in.
    `without`: classes of a parsing network's `mask` that stay as they are in the frame: 0 background, 14 neck, 16
    cloth, 17 hair, 18 hat. `averages`: areas of crops are averaged where faces are half as large or less; with
    `averages = false` pixels are left out, as in OpenCV and GFPGAN's own code.
    """

    factor: float = Field(default=1, gt=0, le=8)
    edge: float = Field(default=0.05, ge=0.01, le=0.4)
    amount: float = Field(default=1, ge=0, le=1)
    without: tuple[Byte, ...] = (0, 14, 16, 17, 18)
    averages: bool = True


class Paste(BaseOperator[PasteOptions]):
    """Reads `image [M, h, w, 3]` of each window, ragged, of a head image over crops, and `crop_matrix`; a parsing
    network's `mask [M, h', w']` if there is one; and the frames: `pixels` and `index`, or `larger [W, H, W', 3]` if
    there is that, frames that a model upscaled.

    Gives `image [W, H, W', 3]` uint8, and `source_size`. Pixels that no mask covers are those of the frames. Source of
    the masks: facexlib, utils/face_restoration_helper.py, paste_faces_to_input_image; made once for a crop, not for
    each place.
    """

    options_class = PasteOptions

    @property
    def by_source(self) -> bool:
        """Whether the size of what it makes depends on the size of the frame: always."""
        return True

    def plan(self, inputs: Arrays) -> Arrays:
        """`image` and `source_size`."""
        name = self._stage.name
        if missing := [each for each in (FRAMES, INDEX) if each not in inputs]:
            hint = f'put a resize stage of its own size before, and keeps = ["{FRAMES}", "{INDEX}"] at those between'
            raise PipelineError(f"stage `{name}` wants the frames, `{missing[0]}`", hint)
        for each in (PICTURES, MATRICES):
            if each not in inputs or not inputs[each].ragged:
                hint = f'put an infer stage before, items = "crops" and keeps = ["{MATRICES}"]'
                raise PipelineError(f"stage `{name}` wants `{each}` of each crop", hint)
        if len(inputs[PICTURES].shape) != 5 or inputs[PICTURES].dtype != "uint8":
            raise PipelineError(f"stage `{name}`: `{PICTURES}` are no pictures", "take a model with a head image")
        return {PICTURES: Tensor("uint8", ("W", "height", "width", 3)), SOURCE_SIZE: Tensor("int32", ("W", 2))}

    def apply(self, part: Part) -> Mapping[str, Value]:
        """See the class."""
        frames = part.array(FRAMES)[part.array(INDEX)[:, 0]]
        height, width = frames.shape[1:3]
        made = np.array(part.array(LARGER)) if LARGER in part.arrays else frames
        if self._options.factor != 1 or LARGER in part.arrays:
            factor = self._options.factor
            size = (round(height * factor), round(width * factor)) if factor != 1 else made.shape[1:3]
            made = resized(made, (max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS)
        pictures, matrices = self._of_crops(part, PICTURES), self._of_crops(part, MATRICES)
        if len(pictures.values) != len(matrices.values) or len(pictures) != len(frames):
            raise PipelineError(f"stage `{self._stage.name}`: there are not as many pictures as crops", "")
        classes = part.arrays.get(CLASSES)
        to_made = scaled(made.shape[2] / max(1, width), made.shape[1] / max(1, height))
        for window, ground in enumerate(made):
            first, last = (int(pictures.offsets[window + more]) for more in (0, 1))
            for number in reversed(range(first, last)):  # the best one is on top
                parsed = classes.values[number] if isinstance(classes, Ragged) else None
                self._put(ground, pictures.values[number], product(to_made, matrices.values[number]), parsed)
        return {PICTURES: made, SOURCE_SIZE: np.full((len(frames), 2), (height, width), np.int32)}

    def _of_crops(self, part: Part, name: str) -> Ragged:
        value = part.arrays.get(name)
        if not isinstance(value, Ragged):
            raise PipelineError(f"stage `{self._stage.name}`: a part has no `{name}` of crops", "")
        return value

    def _put(self, ground: Array, picture: Array, matrix: Array, parsed: Array | None) -> None:
        """Blend a picture into a frame, in the region that it covers; `matrix` takes shares of its sides there."""
        covered = region(matrix, _UNIT, (ground.shape[0], ground.shape[1]))
        if covered is None:
            return
        rows, columns = covered
        back = product(inverse(matrix), moved(columns.start, rows.start))
        size = rows.stop - rows.start, columns.stop - columns.start
        mask = soft_mask((picture.shape[0], picture.shape[1]), self._options.edge)
        if parsed is not None:
            mask = mask * self._kept(parsed, (mask.shape[0], mask.shape[1]))
        to_picture = product(scaled(picture.shape[1], picture.shape[0]), back)
        share = warped(mask[..., None], to_picture, size, averages=self._options.averages)
        share *= np.float32(self._options.amount)
        under = ground[rows, columns].astype(np.float32)
        sharp = Image.Resampling.BICUBIC  # a small face stays sharp
        over = warped(picture, to_picture, size, averaged_by=sharp, averages=self._options.averages)
        ground[rows, columns] = to_bytes(under + share * (over - under))

    def _kept(self, classes: Array, size: tuple[int, int]) -> Array:
        """Return how much of each pixel is wanted by its class, 0 ... 1, soft at the edges of classes."""
        wanted = Image.fromarray(np.where(np.isin(classes, self._options.without), 0, 255).astype(np.uint8))
        wanted = wanted.resize(size[::-1], Image.Resampling.BILINEAR)
        blurred = wanted.filter(ImageFilter.GaussianBlur(_PARSED_SIGMA * max(size)))
        return np.asarray(blurred, np.float32) / np.float32(255)


@lru_cache(maxsize=16)
def soft_mask(size: tuple[int, int], edge: float) -> Array:
    """Return the mask `[h, w]` float32 of a crop: 1 inside, a half at `edge` of its sides, 0 at its border."""
    down, across = (_profile(side, edge) for side in size)
    mask = down[:, None] * across
    mask.flags.writeable = False
    return mask


def _profile(side: int, edge: float) -> Array:
    """Return a box from `edge` to `1 - edge`, blurred by a Gaussian that is cut off at the border."""
    sigma = _SIGMA * edge * side * sqrt(2)
    places = [(number + 0.5, edge * side) for number in range(side)]
    rising = np.array([(1 + erf((min(place, side - place) - at) / sigma)) / 2 for place, at in places])
    least = (1 - erf(edge * side / sigma)) / 2
    return np.asarray(np.maximum(rising - least, 0) / (1 - least), np.float32)
