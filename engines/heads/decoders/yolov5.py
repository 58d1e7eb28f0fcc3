"""yolov5: YOLOv5 and YOLOv7 with decoded outputs, YOLOX exported with decode_in_inference.

Output `[N, A, 5 + classes + E]`: center x, center y, width, height in pixels of the picture, a score that there is
an object, a score for each class, then what a task adds. A score is object * class.
Source: ultralytics/yolov5, utils/general.py, non_max_suppression.
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.base import Count, chosen_output
from engines.heads.decoders.base import BoxOptions, Candidates, best_classes, columns_of, corners, level_of
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class YoloV5Options(BoxOptions):
    """`output`: the name of the output, if the model has several."""

    max: Count = 1000
    output: str = ""


class YoloV5:
    """See the module."""

    Options = YoloV5Options

    def __init__(self, options: YoloV5Options, outputs: Mapping[str, Tensor], extra: int) -> None:
        self._options, self._extra = options, extra
        self.reads = (chosen_output(outputs, options.output, "decoder yolov5"),)
        columns = columns_of(outputs[self.reads[0]], 2, 6 + extra, "yolov5")
        self.classes = None if columns is None else columns - 5 - extra
        (name,), least = self.reads, least_value(options.threshold)
        self.reductions = (Selection(self.reads, name, slice(5, -extra or None), least, factor=(name, 4)),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        level = level_of(outputs, self.reads)
        (values,) = level.arrays
        end = values.shape[2] - self._extra
        # the score of a class is at most 1, so a candidate needs this score above the threshold, too
        rows, places = np.nonzero(values[:, :, 4] > self._options.threshold)
        found = values[rows, places]
        scores = found[:, 4:5] * found[:, 5:end]
        best = best_classes(scores[None], self._options.threshold, self._options.multi_label)
        found = found[best.places]
        boxes = corners(found[:, :2], found[:, 2:4])
        rows, _ = level.found(rows, places)
        return Candidates.of(rows[best.places], boxes, best.scores, best.classes, found[:, end:])
