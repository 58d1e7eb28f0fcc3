"""ssd: single shot detectors with decoded boxes.

Outputs scores `[N, A, classes]`, the first class being the background, and boxes `[N, A, 4]`: x1, y1, x2, y2 as
fractions of the picture's sides. Source: qfgaohao/pytorch-ssd, vision/ssd/predictor.py.
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.decoders.base import BoxOptions, Candidates, best_classes, level_of, refuse_extra
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor
from schemas.errors import ModelError


class SsdOptions(BoxOptions):
    """`activation` makes scores of the output. `background`: class 0 is the background, which has no label."""

    multi_label: bool = True
    scores: str = ""
    boxes: str = ""
    activation: Activation = "none"
    background: bool = True


class Ssd:
    """See the module."""

    Options: type[SsdOptions] = SsdOptions

    def __init__(self, options: SsdOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        refuse_extra(extra, "ssd")
        self._options = options
        boxes, scores = boxes_and_scores(outputs, options.boxes, options.scores, "ssd")
        self.reads = (boxes, scores)
        columns = outputs[scores].shape[-1]
        self.classes = columns - options.background if isinstance(columns, int) else None
        softmax = slice(None) if options.activation == "softmax" else None
        least = least_value(options.threshold, options.activation)
        self.reductions = (Selection(self.reads, scores, slice(int(options.background), None), least, softmax=softmax),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options = self._options
        level = level_of(outputs, self.reads)
        boxes, scores = level.arrays
        scores = ACTIVATIONS[options.activation](scores)[..., int(options.background) :]
        best = best_classes(scores, options.threshold, options.multi_label)
        found = boxes[best.rows, best.places] * np.array(picture[::-1] * 2, np.float32)
        rows, _ = level.found(best.rows, best.places)
        return Candidates.of(rows, found, best.scores, best.classes)


def boxes_and_scores(outputs: Mapping[str, Tensor], boxes: str, scores: str, decoder: str) -> tuple[str, str]:
    """Return the names of both; of two outputs, the one with 4 columns has the boxes. Raises ModelError."""
    four = [name for name, tensor in outputs.items() if tensor.shape[-1] == 4 and name != scores]
    others = [name for name in outputs if name not in four]
    found = boxes or (four[0] if len(four) == 1 else ""), scores or (others[0] if len(others) == 1 else "")
    if not set(found) <= outputs.keys():
        what = f"decoder {decoder}: no outputs are known as boxes and scores"
        raise ModelError(what, f'name them by boxes = "..." and scores = "...", of: {", ".join(outputs)}')
    return found
