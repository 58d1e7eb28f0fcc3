"""nanodet: NanoDet and NanoDet-Plus.

For each stride, scores `[N, A, classes]` after sigmoid and distributions `[N, A, 4 * (reg_max + 1)]`; or one output
of both, `[N, A, classes + 4 * (reg_max + 1)]`. The distance of a side from `(cell + offset) * stride` is the
expectation of the softmax over its bins, times the stride. Boxes are clipped to the picture before suppression.
Source: RangiLyu/nanodet, model/head/gfl_head.py (offset 0.5), nanodet_plus_head.py (offset 0, strides 8 to 64).
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from engines.heads.activations import softmax
from engines.heads.base import Count, Share
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    around,
    best_classes,
    check_anchors,
    columns_of,
    grid_cells,
    level_of,
    levels_of,
    refuse_extra,
)
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor


class NanoDetOptions(BoxOptions):
    """`scores`, `boxes`: names of the outputs in the order of `strides`, if their shapes are not distinct.

    `offset`: the position of a candidate's point in its cell; 0 for NanoDet-Plus.
    """

    threshold: Share = 0.35
    nms: Share = 0.6
    strides: tuple[Count, ...] = (8, 16, 32)
    reg_max: Count = 7
    offset: Share = 0.5
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
        least = least_value(options.threshold)
        if self._joint:
            self.reads = tuple(outputs)
            joint = columns_of(outputs[self.reads[0]], 2, self._sides + 1, "nanodet")
            self.classes = None if joint is None else joint - self._sides
            self._levels = [(options.strides, self.reads)]
            self.reductions = [Selection(self.reads, self.reads[0], slice(-self._sides), least)]
            return
        boxes = levels_of(outputs, options.boxes, self._sides, levels, "decoder nanodet, boxes")
        others = {tensor.shape[-1] for name, tensor in outputs.items() if name not in boxes}
        columns = others.pop() if len(others) == 1 else 0
        self.classes = columns if isinstance(columns, int) and columns else None
        scores = levels_of(outputs, options.scores, self.classes or 0, levels, "decoder nanodet, scores")
        self.reads = (*scores, *boxes)
        names = list(zip(scores, boxes, strict=True))
        self._levels = [((stride,), each) for stride, each in zip(options.strides, names, strict=True)]
        self.reductions = [Selection(each, each[0], slice(None), least) for each in names]

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options, bins, found = self._options, np.arange(self._options.reg_max + 1, dtype=np.float32), []
        for strides, names in self._levels:
            level, points = level_of(outputs, names), _points(picture, strides, options.offset)
            check_anchors(level.count, len(points), picture, "nanodet")
            values = level.arrays[0]
            scores, sides = (values[..., : -self._sides], values[..., -self._sides :]) if self._joint else level.arrays
            best = best_classes(scores, options.threshold, options.multi_label)
            rows, places = level.found(best.rows, best.places)
            point, stride = points[places, :2], points[places, 2:]
            chosen = sides[best.rows, best.places].reshape(-1, 4, len(bins))
            boxes = around(point, (softmax(chosen) * bins).sum(axis=-1) * stride)
            np.clip(boxes, 0, np.array(picture[::-1] * 2, np.float32), out=boxes)
            found.append(Candidates.of(rows, boxes, best.scores, best.classes))
        return Candidates.joined(found)


@lru_cache(maxsize=64)
def _points(picture: Size, strides: tuple[int, ...], offset: float) -> Array:
    """Return x, y and stride `[A, 3]` float32 of the candidates, one stride after the other. Read-only."""
    levels = []
    for stride in strides:
        cells = (grid_cells(picture, stride) + np.float32(offset)) * stride
        levels.append(np.column_stack([cells, np.full(len(cells), stride, np.float32)]))
    points = np.concatenate(levels)
    points.flags.writeable = False
    return points
