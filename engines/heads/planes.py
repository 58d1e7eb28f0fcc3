"""What heads of picture-like outputs share: reading the output, and resizing it to the source."""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import numpy as np
from PIL import Image
from pydantic import AfterValidator

from engines.heads.base import HeadOptions, chosen_output, dense
from engines.heads.view import View
from engines.part import Array, Value, is_on_gpu
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec

_CHANNELS = {"nchw": 1, "nhwc": 3}  # the axis of channels
_SIZES = ("model", "content", "source")
_CACHED_VALUES = 1 << 15
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


def _one_of(names: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"there are {', '.join(names)}")
        return name

    return AfterValidator(check)


Layout: TypeAlias = Annotated[str, _one_of(tuple(_CHANNELS))]
AnswerSize: TypeAlias = Annotated[str, _one_of(_SIZES)]
Filter: TypeAlias = Annotated[str, _one_of(_FILTERS)]


class PlaneOptions(HeadOptions):
    """`layout` of the output: nchw or nhwc; an output of three dimensions has no channels.

    `size` of the result: `model`, as the model gave it; `content`, without the padding of the model's picture;
    `source`, `content` resized to the source. With `source`, pixels that the model's picture does not show are 0.
    """

    output: str = ""
    layout: Layout = "nchw"
    size: AnswerSize = "content"


class PlaneOutput:
    """One output of a model, read as pictures."""

    def __init__(
        self, options: PlaneOptions, outputs: Mapping[str, Tensor], picture: PictureSpec | None, owner: str
    ) -> None:
        self._options, self._owner = options, owner
        self.name = chosen_output(outputs, options.output, owner)
        self._tensor = outputs[self.name]
        if len(self._tensor.shape) not in (3, 4):
            what = f"{owner}: output {self.name} has {len(self._tensor.shape)} dimensions"
            raise ModelError(what, "a picture has 3, or 4 with channels")
        pads = picture is not None and (picture.fit == "letterbox" or picture.multiple > 1 or picture.size == "source")
        self.by_source = options.size == "source" or (options.size == "content" and pads)
        shape = list(self._tensor.shape[1:])
        channels = shape.pop(_CHANNELS[options.layout] - 1) if len(shape) == 3 else 1
        self.channels = channels if isinstance(channels, int) else None
        self.channel_axis = _CHANNELS[options.layout]
        self.is_float = self._tensor.dtype in ("float16", "float32")
        self._sides = ("height", "width") if self.by_source else (shape[0], shape[1])

    def planned(self, dtype: str, *inner: int, labels: tuple[str, ...] = ()) -> Tensor:
        """Return the declaration of the result `[N, height, width, ...]`."""
        return Tensor(dtype, ("N", *self._sides, *inner), labels=labels)

    def read(self, outputs: Mapping[str, Value]) -> Array:
        """Return the output as `[N, h, w, C]`."""
        values = dense(outputs[self.name], self.name)
        if values.ndim == 3:
            return values[..., None]
        return np.moveaxis(values, self.channel_axis, 3)

    def fitted(self, values: Array, views: Sequence[View], filtering: str) -> Array:
        """Resize `[N, h, w]` or `[N, h, w, C]`, uint8 or float32, to the size of the result. Raises ModelError.

        Pictures on a GPU stay there if they have that size.
        """
        if not views or not self.by_source:
            return _contiguous(values)
        view = views[0]
        if any(other != view for other in views):
            raise ModelError(f"{self._owner}: pictures of different sizes are in one batch", "run them apart")
        (height, width), (top, left, bottom, right) = values.shape[1:3], view.content
        down, across = height / view.picture[0], width / view.picture[1]
        if self._options.size == "source":
            part = (left * across, top * down, right * across, bottom * down)
            return _in_source(np.asarray(values), part, view, filtering)
        rows, columns = (
            slice(round(top * down), round(bottom * down)),
            slice(round(left * across), round(right * across)),
        )
        if (rows, columns) == (slice(0, height), slice(0, width)):
            return _contiguous(values)
        return np.ascontiguousarray(values[:, rows, columns])


def _contiguous(values: Array) -> Array:
    return values if is_on_gpu(values) else np.ascontiguousarray(values)


def byte_values(values: Array) -> Array:
    """Make bytes of values from 0 to 1: clipped, times 255, rounded to nearest, halves to even; NaN becomes 0."""
    scaled = np.clip(np.nan_to_num(values.astype(np.float32), nan=0), 0, 1) * np.float32(255)
    return np.asarray(np.rint(scaled), np.uint8)


def picture_bytes(values: Array, order: Sequence[int], black: float, white: float) -> Array:
    """Make pictures `[N, h, w, len(order)]` of channels of `values [N, h, w, C]`: `byte_values` of values from `black`
    to `white`.

    It takes some lines of a channel at a time, which stay in the processor's cache, in a quarter of the time.
    """
    count, height, width = values.shape[:3]
    out = np.empty((count, height, width, len(order)), np.uint8)
    lines = max(1, _CACHED_VALUES // max(1, width))
    for picture, made in zip(values, out, strict=True):
        for channel in set(order):
            for begin in range(0, height, lines):
                some = picture[begin : begin + lines, :, channel].astype(np.float32)
                if (black, white) != (0, 1):
                    some -= np.float32(black)
                    some /= np.float32(white) - np.float32(black)
                np.fmax(some, 0, out=some)  # of NaN and 0 it takes 0
                np.minimum(some, 1, out=some)
                some *= np.float32(255)
                np.rint(some, out=some)
                for place in (place for place, each in enumerate(order) if each == channel):
                    np.copyto(made[begin : begin + lines, :, place], some, casting="unsafe")
    return out


def _in_source(values: Array, part: tuple[float, float, float, float], view: View, filtering: str) -> Array:
    """Scale the `part` (left, top, right, bottom) of each picture to the part of the source that it shows."""
    top, left, bottom, right = view.shown
    answer = np.zeros((len(values), *view.source, *values.shape[3:]), values.dtype)
    for picture, target in zip(values, answer, strict=True):
        image = Image.fromarray(np.ascontiguousarray(picture))
        resized = image.resize((right - left, bottom - top), Image.Resampling[filtering.upper()], part)
        target[top:bottom, left:right] = np.asarray(resized)
    return answer
