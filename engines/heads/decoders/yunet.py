"""yunet: YuNet, faces with 5 points: right eye, left eye, nose, right and left corner of the mouth.

For each stride scores `[N, A, 1]` of class and object, boxes `[N, A, 4]`, points `[N, A, 10]`. For a cell: score
`sqrt(class * object)`, both clipped to 0 ... 1; center `(cell + xy) * stride`, size `exp(wh) * stride`, points
`(cell + xy) * stride`. Source: opencv, modules/objdetect/src/face_detect.cpp.
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.base import Count, Share, chosen_output
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    best_classes,
    check_anchors,
    check_points,
    corners,
    grid_cells,
    level_of,
    scored_points,
)
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class YuNetOptions(BoxOptions):
    """Names of outputs, in which `{stride}` is replaced by each stride."""

    threshold: Share = 0.9
    nms: Share = 0.3
    strides: tuple[Count, ...] = (8, 16, 32)
    class_output: str = "cls_{stride}"
    object_output: str = "obj_{stride}"
    boxes: str = "bbox_{stride}"
    points: str = "kps_{stride}"


class YuNet:
    """See the module."""

    Options = YuNetOptions
    classes = 1

    def __init__(self, options: YuNetOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        check_points(extra, 5, "yunet")
        self._options, self._extra = options, extra
        forms = (options.class_output, options.object_output, options.boxes, options.points)
        self._levels = [
            (stride, [chosen_output(outputs, form.replace("{stride}", str(stride)), "decoder yunet") for form in forms])
            for stride in options.strides
        ]
        self.reads = tuple(name for _, names in self._levels for name in names)
        least = least_value(options.threshold**2)  # of class * object; clipping does not increase it
        self.reductions = [
            Selection(tuple(names), names[0], slice(None), least, factor=(names[1], 0)) for _, names in self._levels
        ]

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        found = []
        for stride, names in self._levels:
            level = level_of(outputs, names)
            classes, objects, boxes, points = level.arrays
            cells = grid_cells(picture, stride)
            check_anchors(level.count, len(cells), picture, "yunet")
            scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
            best = best_classes(scores, self._options.threshold, False)
            rows, places = level.found(best.rows, best.places)
            cell, box = cells[places], boxes[best.rows, best.places]
            corner = corners((cell + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride)
            point = (points[best.rows, best.places].reshape(-1, 5, 2) + cell[:, None]) * stride
            extra = scored_points(point)[:, : self._extra]
            found.append(Candidates.of(rows, corner, best.scores, best.classes, extra))
        return Candidates.joined(found)
