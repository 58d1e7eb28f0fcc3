"""instances: boxes, each with a mask."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from engines.heads.base import dense, own_and_other, parse_options
from engines.heads.boxes import Detector, DetectorOptions
from engines.heads.reductions import Reduction, Stays
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class InstancesOptions(DetectorOptions):
    """`prototypes`: the output of that name, `[N, P, h, w]`; `mask_size`: height and width of a mask."""

    prototypes: str = ""
    mask_size: Annotated[int, Field(ge=1, le=512)] = 56


class Instances(Detector):
    """Options: those of the head detect, and `InstancesOptions`. P coefficients follow each box.

    Gives what detect gives, and `masks [M, mask_size, mask_size]` uint8, a grid over the box, which is clipped to the
    source: 255 where the object is, 0 elsewhere. The object is where `coefficients . prototypes`, interpolated
    bilinearly, exceeds 0, which is where its sigmoid exceeds 1/2.
    Source: ultralytics, utils/ops.py, process_mask.
    """

    Options = InstancesOptions

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        own, _ = own_and_other(InstancesOptions, options)
        parsed = parse_options(InstancesOptions, own, "head instances")
        self._size = parsed.mask_size
        self._prototypes = parsed.prototypes or next((n for n, t in outputs.items() if len(t.shape) == 4), "")
        if self._prototypes not in outputs:
            raise ModelError("head instances: no output is known as the prototypes", "name it by prototypes")
        count = outputs[self._prototypes].shape[1]
        if not isinstance(count, int):
            raise ModelError("head instances: the number of prototypes is not fixed", "export that dimension fixed")
        rest = {name: tensor for name, tensor in outputs.items() if name != self._prototypes}
        super().__init__(options, rest, "instances", count)

    @property
    def reads(self) -> tuple[str, ...]:
        """The outputs of the decoder, and the prototypes."""
        return (*super().reads, self._prototypes)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """The reductions of the decoder; prototypes are copied only for pictures that have boxes."""
        return (*super().reductions, Stays(self._prototypes))

    def plan(self) -> dict[str, Tensor]:
        """`boxes`, `scores`, `classes` and `masks`."""
        masks = Tensor("uint8", ("N", "count", self._size, self._size), ragged=True)
        return {**super().plan(), "masks": masks}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        found = self.find(outputs, views)
        kept, prototypes = found.candidates, dense(outputs[self._prototypes], self._prototypes)
        masks = np.zeros((len(kept.rows), self._size, self._size), np.uint8)
        for row, view in enumerate(views):
            mine = slice(found.offsets[row], found.offsets[row + 1])
            if mine.start < mine.stop:
                (own,) = np.asarray(prototypes[row : row + 1])
                masks[mine] = self._masks(own, kept.extra[mine], kept.boxes[mine], view)
        return {**found.arrays(), "masks": found.ragged(masks)}

    def _masks(self, prototypes: Array, coefficients: Array, boxes: Array, view: View) -> Array:
        """Return the masks of the boxes of one picture."""
        count, height, width = prototypes.shape
        logits = (coefficients @ prototypes.reshape(count, -1)).reshape(-1, height, width)
        top, left, bottom, right = view.content
        boxes = np.clip(boxes, [left, top] * 2, [right, bottom] * 2)
        part = (np.arange(self._size) + 0.5) / self._size
        across = (boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * part) * width / view.picture[1] - 0.5
        down = (boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * part) * height / view.picture[0] - 0.5
        return (_sampled(logits, down, across) > 0) * np.uint8(255)


def _sampled(values: Array, down: Array, across: Array) -> Array:
    """Interpolate `values [M, h, w]` bilinearly at rows `down [M, S]` and columns `across [M, S]`: `[M, S, S]`."""
    number = np.arange(len(values))[:, None, None]
    (top, bottom, low), (left, right, far) = (
        _neighbours(places, side) for places, side in zip((down, across), values.shape[1:], strict=True)
    )
    top, bottom, low = top[:, :, None], bottom[:, :, None], low[:, :, None]
    left, right, far = left[:, None], right[:, None], far[:, None]
    upper = values[number, top, left] * (1 - far) + values[number, top, right] * far
    lower = values[number, bottom, left] * (1 - far) + values[number, bottom, right] * far
    return np.asarray(upper * (1 - low) + lower * low)


def _neighbours(places: Array, side: int) -> tuple[Array, Array, Array]:
    """Return the two pixels next to each place, and the weight of the second; outside, the pixel at the border."""
    places = np.clip(places, 0, side - 1)
    first = np.floor(places).astype(np.int64)
    return first, np.minimum(first + 1, side - 1), places - first
