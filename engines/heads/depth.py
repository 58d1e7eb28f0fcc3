"""depth: the distance of each pixel, in the unit of the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.base import parse_options
from engines.heads.planes import Filter, PlaneOptions, PlaneOutput
from engines.heads.view import View
from engines.part import Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class DepthOptions(PlaneOptions):
    """`resize`: the filter of `size = "source"`."""

    resize: Filter = "bilinear"


class Depth:
    """Reads `[N, h, w]` or `[N, 1, h, w]`. Gives `depth [N, height, width]` float32, the values of the model.

    MiDaS and Depth Anything give the inverse of a distance, without a unit; ZoeDepth and the like give meters.
    """

    Options = DepthOptions
    needs_view = True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(DepthOptions, options, "head depth")
        self._plane = PlaneOutput(self._options, outputs, picture, "head depth")
        self.by_source, self.reads = self._plane.by_source, (self._plane.name,)
        if self._plane.channels not in (1, None):
            raise ModelError(f"head depth: output {self.reads[0]} has {self._plane.channels} channels", "it needs one")

    def plan(self) -> dict[str, Tensor]:
        """`depth`."""
        return {"depth": self._plane.planned("float32")}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        values = self._plane.read(outputs)[..., 0].astype(np.float32)
        return {"depth": self._plane.fitted(values, views, self._options.resize)}
