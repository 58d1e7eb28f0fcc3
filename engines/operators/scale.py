"""scale: pictures that a model made -> the same at a multiple of the source's size, with the source's transparency."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from PIL import Image
from pydantic import Field

from engines.cuda.arrays import GpuRows
from engines.cuda.resampling import resized_rows
from engines.operators.base import BaseOperator
from engines.options import Options
from engines.part import Array, Part, Value
from engines.planned import SOURCE_SIZE, Arrays, Tensor, model_picture_name
from schemas.errors import PipelineError
from schemas.picture import PictureSpec

_IMAGE, _ALPHA = "image", PictureSpec(layout="alpha")


class ScaleOptions(Options):
    """`factor`: how many times as large as the source the pictures become; 0: as large as the model made them."""

    factor: float = Field(default=0, ge=0, le=8)


class Scale(BaseOperator[ScaleOptions]):
    """Takes `image [W, h, w, 3]` uint8 of head image; gives `image [W, H, W', 3]`.

    Images that are stored without colours get one channel, luma by BT.601, and transparent ones get one more.

    A side has `round(side of the source * factor)` pixels. Pictures are resized by Pillow's Lanczos; transparency,
    which models do not see, by its bilinear one. Of media with times transparency is left out, as in all formats.
    Pictures on a GPU are resized there, to the same bytes, and stay unless they are transparent.
    """

    options_class = ScaleOptions
    anywhere = True

    @property
    def by_source(self) -> bool:
        """Whether the size of what it makes depends on the size of the frame: always."""
        return True

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """The frame's transparency."""
        return {model_picture_name(self._stage.name, "alpha"): _ALPHA}

    def plan(self, inputs: Arrays) -> Arrays:
        """`image`, and `source_size`."""
        for name in (_IMAGE, SOURCE_SIZE):
            if name not in inputs:
                what = f"stage `{self._stage.name}` wants `{name}`"
                raise PipelineError(what, "put an infer stage before it, whose model has a head image")
        return {_IMAGE: Tensor("uint8", ("W", "height", "width", "colours")), SOURCE_SIZE: inputs[SOURCE_SIZE]}

    def apply(self, part: Part) -> Mapping[str, Value]:
        """See the class."""
        made, sizes = part.array(_IMAGE), part.array(SOURCE_SIZE)
        if not len(made):
            return {_IMAGE: made, SOURCE_SIZE: sizes}
        factor = self._options.factor
        size = tuple(max(1, round(int(side) * factor)) for side in sizes[0]) if factor else made.shape[1:3]
        if part.meta.media.timed:  # a film is neither gray nor transparent
            return {_IMAGE: resized(made, (size[0], size[1]), Image.Resampling.LANCZOS), SOURCE_SIZE: sizes}
        if all(item.gray for item in part.meta.items if not item.error):
            made = _gray(np.asarray(made))
        pictures = resized(made, (size[0], size[1]), Image.Resampling.LANCZOS)
        pictures = pictures if pictures.ndim == 4 else pictures[..., None]
        alpha = part.array(model_picture_name(self._stage.name, "alpha"))[part.array("index")[:, 0]]
        if alpha.size and alpha.min() < 255:
            alpha = resized(alpha, (size[0], size[1]), Image.Resampling.BILINEAR)
            pictures = np.concatenate([pictures, alpha[..., None]], axis=3)
        return {_IMAGE: pictures, SOURCE_SIZE: sizes}


def resized(pictures: Array, size: tuple[int, int], by: Image.Resampling) -> Array:
    """Return pictures `[W, h, w(, 3)]` uint8 at `size` (height, width); those on a GPU stay there."""
    if pictures.shape[1:3] == size:
        return pictures
    if isinstance(pictures, GpuRows):
        return cast(Array, resized_rows(pictures, size, by.name.lower(), antialias=True))
    return np.stack([np.asarray(Image.fromarray(each).resize(size[::-1], by)) for each in pictures])


def _gray(pictures: Array) -> Array:
    """`[W, h, w]` of `[W, h, w, 3]`, rounded to nearest: in whole numbers, which are the same on every processor."""
    red, green, blue = (pictures[..., number].astype(np.uint32) for number in range(3))
    made: Array = ((red * 299 + green * 587 + blue * 114 + 500) // 1000).astype(np.uint8)
    return made
