"""yolox: YOLOX with raw outputs; with decode_in_inference they are those of yolov5.

Output `[N, A, 5 + classes]`, the candidates of all strides behind each other. For the cell at column x and row y of a
stride: center `(xy + cell) * stride`, size `exp(wh) * stride`, score object * class.
Source: Megvii-BaseDetection/YOLOX, yolox/utils/demo_utils.py (which suppresses without regard to classes).
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.base import Count, Share, chosen_output
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    best_classes,
    check_anchors,
    columns_of,
    corners,
    grid_cells,
    level_of,
    refuse_extra,
)
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class YoloXOptions(BoxOptions):
    """`strides` of the grids, in the order of the output."""

    threshold: Share = 0.3
    output: str = ""
    strides: tuple[Count, ...] = (8, 16, 32)


class YoloX:
    """See the module."""

    Options = YoloXOptions

    def __init__(self, options: YoloXOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        refuse_extra(extra, "yolox")
        self._options = options
        self.reads = (chosen_output(outputs, options.output, "decoder yolox"),)
        columns = columns_of(outputs[self.reads[0]], 2, 6, "yolox")
        self.classes = None if columns is None else columns - 5
        (name,), least = self.reads, least_value(options.threshold)
        self.reductions = (Selection(self.reads, name, slice(5, None), least, factor=(name, 4)),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options, level = self._options, level_of(outputs, self.reads)
        (values,) = level.arrays
        grids = [grid_cells(picture, stride) for stride in options.strides]
        cells, strides = np.concatenate(grids), np.repeat(options.strides, [len(grid) for grid in grids])
        check_anchors(level.count, len(cells), picture, "yolox")
        # the score of a class is at most 1, so a candidate needs the score of its object above the threshold, too
        rows, places = np.nonzero(values[:, :, 4] > options.threshold)
        found = values[rows, places]
        best = best_classes((found[:, 4:5] * found[:, 5:])[None], options.threshold, options.multi_label)
        found = found[best.places]
        rows, places = level.found(rows[best.places], places[best.places])
        stride = strides[places, None].astype(np.float32)
        boxes = corners((found[:, :2] + cells[places]) * stride, np.exp(found[:, 2:4]) * stride)
        return Candidates.of(rows, boxes, best.scores, best.classes)
