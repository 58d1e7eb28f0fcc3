"""image: an output that is a picture, for example an upscaled or restored one."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from engines.heads.base import dense, parse_options
from engines.heads.planes import Filter, PlaneOptions, PlaneOutput, picture_bytes
from engines.heads.reductions import ByteValues
from engines.heads.view import View
from engines.part import Value, is_on_gpu
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec

_ORDERS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "gray": (0, 0, 0)}  # which channels of the output are R, G and B


def _known(colours: str) -> str:
    if colours not in _ORDERS:
        raise ValueError(f"there are {', '.join(_ORDERS)}")
    return colours


_Value: TypeAlias = Annotated[float, Field(ge=-65_536, le=65_536)]  # of up to 16 bits


class ImageOptions(PlaneOptions):
    """`range`: the values of black and white. `colours` of the output; gray becomes equal R, G and B."""

    range: tuple[_Value, _Value] = (0.0, 1.0)
    colours: Annotated[str, AfterValidator(_known)] = "rgb"
    resize: Filter = "lanczos"

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise ValueError("range takes the value of black and a larger value of white")
        return self


class ImageHead:
    """Reads `[N, 3, h, w]` (gray: 1 channel or none). Gives `image [N, height, width, 3]` uint8, RGB.

    A byte is `(value - black) / (white - black) * 255`, clipped and rounded to nearest, halves to even; an output of
    bytes stays as it is. If the model scales its picture by a factor, the picture without padding is scaled by it, too.
    Source: xinntao/Real-ESRGAN, realesrgan/utils.py.
    """

    Options = ImageOptions
    needs_view = True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(ImageOptions, options, "head image")
        self._plane = PlaneOutput(self._options, outputs, picture, "head image")
        self.by_source, self.reads = self._plane.by_source, (self._plane.name,)
        channels, needed = self._plane.channels, len(set(_ORDERS[self._options.colours]))
        if channels is not None and channels != needed:
            what = f"head image: output {self.reads[0]} has {channels} channels, and {self._options.colours} {needed}"
            raise ModelError(what, "correct colours or layout")
        axis, order = self._plane.channel_axis, _ORDERS[self._options.colours]
        self.reductions = (ByteValues(self.reads[0], axis, *self._options.range, order=order),)

    def plan(self) -> dict[str, Tensor]:
        """`image`."""
        return {"image": self._plane.planned("uint8", 3)}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        if is_on_gpu(outputs[self.reads[0]]):  # where it became pictures
            made = dense(outputs[self.reads[0]], self.reads[0])
            return {"image": self._plane.fitted(made, views, self._options.resize)}
        values, order = self._plane.read(outputs), _ORDERS[self._options.colours]
        if values.dtype == np.uint8:
            values = values[..., list(order)]
        else:
            values = picture_bytes(values, order, *self._options.range)
        return {"image": self._plane.fitted(values, views, self._options.resize)}
