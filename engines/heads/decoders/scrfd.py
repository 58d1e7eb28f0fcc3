"""scrfd: SCRFD of InsightFace, faces with or without 5 points (eyes, nose, corners of the mouth).

For each stride scores `[N, A, 1]`, distances `[N, A, 4]` and points `[N, A, 10]`, with `anchors` candidates a cell.
A side is its distance times the stride from `cell * stride`, a point the same. Source: insightface,
python-package/insightface/model_zoo/scrfd.py.
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.base import Count, Share
from engines.heads.decoders.base import (
    BoxOptions,
    Candidates,
    around,
    best_classes,
    check_anchors,
    check_points,
    grid_cells,
    level_of,
    levels_of,
    scored_points,
)
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class ScrfdOptions(BoxOptions):
    """`scores`, `boxes`, `points`: names of the outputs in the order of `strides`, if their shapes are not distinct."""

    threshold: Share = 0.5
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
        kinds = [
            levels_of(outputs, options.scores, 1, levels, "decoder scrfd, scores"),
            levels_of(outputs, options.boxes, 4, levels, "decoder scrfd, boxes"),
        ]
        if extra:
            kinds.append(levels_of(outputs, options.points, 10, levels, "decoder scrfd, points"))
        self.reads = tuple(name for names in kinds for name in names)
        self._levels = list(zip(*kinds, strict=True))
        least = least_value(options.threshold)
        self.reductions = [Selection(names, names[0], slice(None), least) for names in self._levels]

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        found = []
        for stride, names in zip(self._options.strides, self._levels, strict=True):
            level = level_of(outputs, names)
            scores, boxes, *points = level.arrays
            cells = np.repeat(grid_cells(picture, stride), self._options.anchors, axis=0)
            check_anchors(level.count, len(cells), picture, "scrfd")
            best = best_classes(scores, self._options.threshold, False)
            rows, places = level.found(best.rows, best.places)
            centers, extra = cells[places] * stride, None
            if points:
                offsets = points[0][best.rows, best.places].reshape(-1, 5, 2)
                extra = scored_points(centers[:, None] + offsets * stride)
            corner = around(centers, boxes[best.rows, best.places] * stride)
            found.append(Candidates.of(rows, corner, best.scores, best.classes, extra))
        return Candidates.joined(found)
