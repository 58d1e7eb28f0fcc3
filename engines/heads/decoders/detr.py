"""detr: DETR, RT-DETR, RF-DETR and D-FINE: a set of boxes without suppression.

Outputs boxes `[N, Q, 4]`: center x, center y, width, height as shares of the picture's sides, and logits
`[N, Q, classes]`; or both in one output `[N, Q, 4 + classes]`. Sources: roboflow/rf-detr, models/lwdetr.py,
PostProcess (sigmoid, a query may be of several classes); ultralytics, models/rtdetr/predict.py (one output,
`activation = "none"`, `multi_label = false`); facebookresearch/detr (`activation = "softmax"`, `background`).
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import Share
from engines.heads.decoders.base import BoxOptions, Candidates, best_classes, corners, level_of, refuse_extra
from engines.heads.decoders.ssd import boxes_and_scores
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class DetrOptions(BoxOptions):
    """`activation` makes scores of the logits. `background`: the last class is the background, which has no label."""

    threshold: Share = 0.5
    nms: Share = 1.0
    multi_label: bool = True
    boxes: str = ""
    scores: str = ""
    activation: Activation = "sigmoid"
    background: bool = False


class Detr:
    """See the module."""

    Options = DetrOptions

    def __init__(self, options: DetrOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        refuse_extra(extra, "detr")
        self._options = options
        self._joint = len(outputs) == 1
        self.reads = tuple(outputs)
        if not self._joint:
            self.reads = boxes_and_scores(outputs, options.boxes, options.scores, "detr")
        columns = outputs[self.reads[-1]].shape[-1]
        others = 4 * self._joint + options.background
        self.classes = columns - others if isinstance(columns, int) else None
        logits, first = self.reads[-1], 4 * self._joint
        softmax = slice(first, None) if options.activation == "softmax" else None
        least, last = least_value(options.threshold, options.activation), -1 if options.background else None
        self.reductions = (Selection(self.reads, logits, slice(first, last), least, softmax=softmax),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options, level = self._options, level_of(outputs, self.reads)
        values = level.arrays
        boxes, logits = (values[0][..., :4], values[0][..., 4:]) if self._joint else values
        scores = ACTIVATIONS[options.activation](logits)
        if options.background:
            scores = scores[..., :-1]
        best = best_classes(scores, options.threshold, options.multi_label)
        found = boxes[best.rows, best.places] * np.array(picture[::-1] * 2, np.float32)
        rows, _ = level.found(best.rows, best.places)
        return Candidates.of(rows, corners(found[:, :2], found[:, 2:]), best.scores, best.classes)
