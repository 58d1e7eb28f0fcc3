"""scrfd: SCRFD of InsightFace, faces with or without 5 points (eyes, nose, corners of the mouth).

For each stride scores `[N, A, 1]`, distances `[N, A, 4]` and points `[N, A, 10]`, with `anchors` candidates a cell.
A side is its distance times the stride from `cell * stride`, a point the same. Source: insightface,
python-package/insightface/model_zoo/scrfd.py.
"""

from collections.abc import Mapping

import numpy as np

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
    check_points,
    grid_cells,
    levels_of,
    scored_points,
)
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class ScrfdOptions(BoxOptions):
    """`scores`, `boxes`, `points`: names of the outputs in the order of `strides`, where their shapes do not say it."""

    threshold: Score = 0.5
    nms: Share = 0.4
    strides: tuple[Count, ...] = (8, 16, 32)
    anchors: Count = 2
    scores: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


class Scrfd:
    """See the module."""

    Options = ScrfdOptions
    classes = 1

    def __init__(self, options: ScrfdOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        check_points(extra, 5, "scrfd")
        self._options, levels = options, len(options.strides)
        self._scores = levels_of(outputs, options.scores, 1, levels, "decoder scrfd, scores")
        self._boxes = levels_of(outputs, options.boxes, 4, levels, "decoder scrfd, boxes")
        self._points: tuple[str, ...] = ()
        if extra:
            self._points = levels_of(outputs, options.points, 10, levels, "decoder scrfd, points")
        self.reads = (*self._scores, *self._boxes, *self._points)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        found = []
        for level, stride in enumerate(self._options.strides):
            scores, boxes = (dense(outputs[names[level]], names[level]) for names in (self._scores, self._boxes))
            cells = np.repeat(grid_cells(picture, stride), self._options.anchors, axis=0)
            check_anchors(scores.shape[1], len(cells), picture, "scrfd")
            best = best_classes(scores, self._options.threshold, False)
            centers, extra = cells[best.places] * stride, None
            if self._points:
                name = self._points[level]
                offsets = dense(outputs[name], name)[best.rows, best.places].reshape(-1, 5, 2)
                extra = scored_points(centers[:, None] + offsets * stride)
            corner = around(centers, boxes[best.rows, best.places] * stride)
            found.append(Candidates.of(best.rows, corner, best.scores, best.classes, extra))
        return Candidates.joined(found)
