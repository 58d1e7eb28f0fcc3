"""segment: the class of each pixel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import Labels, Share, check_labels, parse_options
from engines.heads.planes import PlaneOptions, PlaneOutput
from engines.heads.reductions import ClassNumbers
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class SegmentOptions(PlaneOptions):
    """`threshold` and `activation` are for outputs of one channel: the class is 1 above the threshold, otherwise 0."""

    labels: Labels = ()
    threshold: Share = 0.5
    activation: Activation = "none"


class Segment:
    """Reads scores of classes `[N, C, h, w]`, or of one class, or class numbers (integers) `[N, h, w]`.

    Gives `mask [N, height, width]` uint8, the class with the highest score, of equal scores the first. At the size of
    the source, each pixel has the class of the nearest one.
    """

    Options = SegmentOptions
    needs_view = True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(SegmentOptions, options, "head segment")
        self._plane = PlaneOutput(self._options, outputs, picture, "head segment")
        self.by_source, self.reads = self._plane.by_source, (self._plane.name,)
        channels = self._plane.channels or 0
        check_labels(self._options.labels, channels if channels > 1 else 0, "head segment")
        if channels > 256:
            raise ModelError(f"head segment: {channels} classes do not fit into bytes", "use the head raw")
        exact = channels > 1 or (channels == 1 and self._options.activation == "none")
        numbers = ClassNumbers(self.reads[0], self._plane.channel_axis, self._options.threshold)
        self.reductions = (numbers,) if exact and self._plane.is_float else ()

    def plan(self) -> dict[str, Tensor]:
        """`mask`."""
        return {"mask": self._plane.planned("uint8", labels=self._options.labels)}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        classes = self._classes(self._plane.read(outputs)).astype(np.uint8)
        return {"mask": self._plane.fitted(classes, views, "nearest")}

    def _classes(self, values: Array) -> Array:
        if values.shape[3] > 1:
            return np.asarray(values.argmax(axis=3))
        if values.dtype.kind in "iu":
            return values[..., 0]
        return np.asarray(ACTIVATIONS[self._options.activation](values[..., 0]) > self._options.threshold)
