"""matte: the share of each pixel that belongs to the foreground."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import parse_options
from engines.heads.planes import Filter, PlaneOptions, PlaneOutput, byte_values
from engines.heads.reductions import ByteValues
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class MatteOptions(PlaneOptions):
    """`channel` of the output. `stretch`: the smallest value of a picture becomes 0, and the largest 1."""

    channel: Annotated[int, Field(ge=0, le=10_000)] = 0
    activation: Activation = "none"
    stretch: bool = False
    resize: Filter = "bilinear"


class Matte:
    """Reads `[N, C, h, w]` or `[N, h, w]`. Gives `alpha [N, height, width]` uint8: 0 background, 255 foreground.

    Sources: PeterL1n/RobustVideoMatting (values from 0 to 1); danielgatis/rembg, sessions/u2net.py (`stretch`).
    """

    Options = MatteOptions
    needs_view = True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(MatteOptions, options, "head matte")
        self._plane = PlaneOutput(self._options, outputs, picture, "head matte")
        self.by_source, self.reads = self._plane.by_source, (self._plane.name,)
        channels = self._plane.channels
        if channels is not None and self._options.channel >= channels:
            raise ModelError(f"head matte: there is no channel {self._options.channel} of {channels}", "lower channel")
        exact = self._plane.is_float and self._options.activation == "none" and not self._options.stretch
        alpha = ByteValues(self.reads[0], self._plane.channel_axis, channel=self._options.channel)
        self.reductions = (alpha,) if exact else ()

    def plan(self) -> dict[str, Tensor]:
        """`alpha`."""
        return {"alpha": self._plane.planned("uint8")}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        values = self._plane.read(outputs)
        alpha = values[..., 0] if self.reductions and values.dtype == np.uint8 else self._alpha(values)
        return {"alpha": self._plane.fitted(alpha, views, self._options.resize)}

    def _alpha(self, values: Array) -> Array:
        values = ACTIVATIONS[self._options.activation](values)[..., self._options.channel]
        if self._options.stretch:
            least, most = (each(axis=(1, 2), keepdims=True) for each in (values.min, values.max))
            values = (values - least) / (most - least).clip(1e-12)
        return byte_values(values)
