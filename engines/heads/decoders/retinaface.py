"""retinaface: RetinaFace in PyTorch, faces with 5 points: eyes, nose, corners of the mouth.

Outputs `[N, A, 4]` boxes, `[N, A, 2]` scores (softmax done: background, face), `[N, A, 10]` points. Anchors are
squares of `sizes` around the centers of the cells of each stride. With variances 0.1 and 0.2: center
`anchor + xy * 0.1 * size`, side `size * exp(wh * 0.2)`, point `anchor + xy * 0.1 * size`.
Source: biubug6/Pytorch_Retinaface, utils/box_utils.py, layers/functions/prior_box.py.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from engines.heads.base import Count, Share
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    best_classes,
    check_anchors,
    check_points,
    corners,
    grid_cells,
    level_of,
    levels_of,
    scored_points,
)
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor


class RetinaFaceOptions(BoxOptions):
    """`sizes` of the anchors of each stride; `boxes`, `scores`, `points`: outputs, if shapes are not distinct."""

    threshold: Share = 0.6
    nms: Share = 0.4
    strides: tuple[Count, ...] = (8, 16, 32)
    sizes: tuple[tuple[Count, ...], ...] = ((16, 32), (64, 128), (256, 512))
    boxes: str = ""
    scores: str = ""
    points: str = ""


class RetinaFace:
    """See the module."""

    Options = RetinaFaceOptions
    classes = 1

    def __init__(self, options: RetinaFaceOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        check_points(extra, 5, "retinaface")
        self._options, self._extra = options, extra
        wanted = {"boxes": (options.boxes, 4), "scores": (options.scores, 2), "points": (options.points, 10)}
        self.reads = tuple(
            levels_of(outputs, (name,) if name else (), columns, 1, f"decoder retinaface, {option}")[0]
            for option, (name, columns) in wanted.items()
        )
        self.reductions = (Selection(self.reads, self.reads[1], slice(1, None), least_value(options.threshold)),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        level = level_of(outputs, self.reads)
        boxes, scores, points = level.arrays
        anchors = _anchors(picture, self._options.strides, self._options.sizes)
        check_anchors(level.count, len(anchors), picture, "retinaface")
        best = best_classes(scores[..., 1:], self._options.threshold, False)
        rows, places = level.found(best.rows, best.places)
        center, size = anchors[places, :2], anchors[places, 2:]
        box = boxes[best.rows, best.places]
        found = corners(center + box[:, :2] * np.float32(0.1) * size, size * np.exp(box[:, 2:] * np.float32(0.2)))
        offsets = points[best.rows, best.places].reshape(-1, 5, 2) * np.float32(0.1) * size[:, None]
        extra = scored_points(center[:, None] + offsets)[:, : self._extra]
        return Candidates.of(rows, found, best.scores, best.classes, extra)


@lru_cache(maxsize=16)
def _anchors(picture: Size, strides: tuple[int, ...], sizes: tuple[tuple[int, ...], ...]) -> Array:
    """Return center x, center y and side `[A, 3]` of all anchors, in pixels."""
    levels = []
    for stride, sides in zip(strides, sizes, strict=True):
        centers = np.repeat((grid_cells(picture, stride) + np.float32(0.5)) * stride, len(sides), axis=0)
        of_anchors = np.tile(np.array(sides, np.float32), len(centers) // len(sides))
        levels.append(np.column_stack([centers, of_anchors]))
    return np.concatenate(levels)
