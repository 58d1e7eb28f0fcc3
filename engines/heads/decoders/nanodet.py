"""nanodet: NanoDet and NanoDet-Plus.

For each stride scores `[N, A, classes]` (sigmoid done) and distributions `[N, A, 4 * (reg_max + 1)]`; or all of it
in one output `[N, A, classes + 4 * (reg_max + 1)]`. A side is the expectation of the softmax over its bins, times
the stride, from `(cell + offset) * stride`; boxes are clipped to the picture before suppression.
Source: RangiLyu/nanodet, model/head/gfl_head.py (offset 0.5), nanodet_plus_head.py (offset 0, strides 8 to 64).
"""

from collections.abc import Iterator, Mapping

import numpy as np

from engines.heads.activations import softmax
from engines.heads.base import dense
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    Count,
    Score,
    Share,
    around,
    best_classes,
    check_anchors,
    columns_of,
    grid_cells,
    levels_of,
    refuse_extra,
)
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor


class NanoDetOptions(BoxOptions):
    """`scores`, `boxes`: names of the outputs in the order of `strides`, where their shapes do not say it.

    `offset`: where in its cell a candidate's point is; 0 for NanoDet-Plus.
    """

    threshold: Score = 0.35
    nms: Share = 0.6
    strides: tuple[Count, ...] = (8, 16, 32)
    reg_max: Count = 7
    offset: float = 0.5
    scores: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()


class NanoDet:
    """See the module."""

    Options = NanoDetOptions

    def __init__(self, options: NanoDetOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        refuse_extra(extra, "nanodet")
        self._options, self._sides = options, 4 * (options.reg_max + 1)
        levels = len(options.strides)
        self._joint = len(outputs) == 1
        if self._joint:
            self.reads = tuple(outputs)
            joint = columns_of(outputs[self.reads[0]], 2, self._sides + 1, "nanodet")
            self.classes = None if joint is None else joint - self._sides
            return
        self._boxes = levels_of(outputs, options.boxes, self._sides, levels, "decoder nanodet, boxes")
        others = {tensor.shape[-1] for name, tensor in outputs.items() if name not in self._boxes}
        columns = others.pop() if len(others) == 1 else 0
        self.classes = columns if isinstance(columns, int) and columns else None
        self._scores = levels_of(outputs, options.scores, self.classes or 0, levels, "decoder nanodet, scores")
        self.reads = (*self._scores, *self._boxes)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options, bins, found = self._options, np.arange(self._options.reg_max + 1, dtype=np.float32), []
        for stride, scores, sides in self._levels(outputs, picture):
            best = best_classes(scores, options.threshold, options.multi_label)
            chosen = sides[best.rows, best.places].reshape(-1, 4, len(bins))
            points = (grid_cells(picture, stride)[best.places] + np.float32(options.offset)) * stride
            boxes = around(points, (softmax(chosen) * bins).sum(axis=-1) * stride)
            np.clip(boxes, 0, np.array(picture[::-1] * 2, np.float32), out=boxes)
            found.append(Candidates.of(best.rows, boxes, best.scores, best.classes))
        return Candidates.joined(found)

    def _levels(self, outputs: Mapping[str, Value], picture: Size) -> Iterator[tuple[int, Array, Array]]:
        """Stride, scores and distributions of each level."""
        counts = [len(grid_cells(picture, stride)) for stride in self._options.strides]
        if self._joint:
            values = dense(outputs[self.reads[0]], self.reads[0])
            check_anchors(values.shape[1], sum(counts), picture, "nanodet")
            for stride, part in zip(self._options.strides, np.split(values, np.cumsum(counts)[:-1], 1), strict=True):
                yield stride, part[..., : -self._sides], part[..., -self._sides :]
            return
        for stride, count, *names in zip(self._options.strides, counts, self._scores, self._boxes, strict=True):
            scores, sides = (dense(outputs[name], name) for name in names)
            check_anchors(scores.shape[1], count, picture, "nanodet")
            yield stride, scores, sides
