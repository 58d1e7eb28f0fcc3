"""arrays: detectors that contain suppression, with separate outputs of boxes, scores and classes.

TensorFlow's detection models (`order = ["y1", "x1", "y2", "x2"]`, `normalised`, `first_class = 1`), TensorRT's
EfficientNMS, torchvision, MMDeploy (`dets [N, K, 5]` with the score in the last column). Outputs `[N, K, 4 or 5]`,
`[N, K]`, `[N, K]`, or ragged, and optionally how many of the K are detections, `[N]` or `[N, 1]`.
Source: tensorflow/models, exporter_main_v2.py; NVIDIA/TensorRT, plugin/efficientNMSPlugin.
"""

from collections.abc import Mapping
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from engines.heads.base import Share, chosen_output, dense
from engines.heads.decoders.base import BoxOptions, Candidates, refuse_extra
from engines.heads.decoders.end2end import rows_of
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor

_CORNERS = ("x1", "y1", "x2", "y2")


class ArraysOptions(BoxOptions):
    """Names of outputs. Without `scores`, they are the fifth column of boxes; without `count`, all K are detections.

    `order` of the coordinates. `normalised`: coordinates are fractions of the picture's sides. `first_class`: the
    number of the first label.
    """

    nms: Share = 1.0
    boxes: str
    scores: str = ""
    class_output: str = ""
    count: str = ""
    order: tuple[str, ...] = _CORNERS
    normalised: bool = False
    first_class: Annotated[int, Field(ge=0, le=10_000)] = 0

    @model_validator(mode="after")
    def _order_has_all_corners(self) -> Self:
        if sorted(self.order) != sorted(_CORNERS):
            raise ValueError("order needs each of x1, y1, x2, y2 once")
        return self


class Arrays:
    """See the module."""

    Options = ArraysOptions
    classes = None

    def __init__(self, options: ArraysOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        refuse_extra(extra, "arrays")
        self._options = options
        wanted = [name for name in (options.boxes, options.scores, options.class_output, options.count) if name]
        self.reads = tuple(chosen_output(outputs, name, "decoder arrays") for name in wanted)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options = self._options
        rows, table = rows_of(outputs[options.boxes], 1)
        scores = rows_of(outputs[options.scores], 0)[1] if options.scores else table[:, 4]
        used = scores > options.threshold
        if options.count:
            counts = dense(outputs[options.count], options.count).reshape(-1)
            used &= np.arange(len(rows)) - np.searchsorted(rows, rows) < counts[rows]
        classes: Array = np.zeros(len(rows), np.int32)
        if options.class_output:
            classes = rows_of(outputs[options.class_output], 0)[1] - options.first_class
        boxes = table[:, [options.order.index(corner) for corner in _CORNERS]]
        if options.normalised:
            boxes = boxes * np.array(picture[::-1] * 2, np.float32)
        return Candidates.of(rows[used], boxes[used], scores[used], classes[used])
