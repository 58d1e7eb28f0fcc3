"""Non-maximum suppression on the CPU: exact, deterministic, all rows and classes of a batch together."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from engines.part import Array

Overlap: TypeAlias = Callable[[Array, Array], Array]


def box_overlap(first: Array, second: Array) -> Array:
    """Intersection over union `[P]` of pairs `[P, 4 or more]` of x1, y1, x2, y2, as torchvision's `box_iou`."""
    left_top = np.maximum(first[:, :2], second[:, :2])
    right_bottom = np.minimum(first[:, 2:4], second[:, 2:4])
    width, height = np.maximum(right_bottom - left_top, 0).T
    shared = width * height
    return np.asarray(shared / (_area(first) + _area(second) - shared))


def suppress(shapes: Array, scores: Array, groups: Array, threshold: float, most: int, overlap: Overlap) -> Array:
    """Indices that greedy suppression keeps, at most `most` a group, in the order of groups and falling scores.

    Only candidates of equal `groups [C]` suppress each other: one is dropped when its overlap with a kept one of a
    higher score exceeds `threshold`. Of equal scores the first counts as the higher. `overlap` compares pairs of
    `shapes [C, ...]`.

    Each round keeps the best candidate that is left of every group, and drops what overlaps with it: that gives what
    a loop over the candidates of each group gives, with as many rounds as one group keeps.
    """
    left = np.lexsort((-scores, groups))
    kept = []
    for _ in range(most):
        if not len(left):
            break
        group = groups[left]
        is_best = np.concatenate([[True], group[1:] != group[:-1]])
        best = left[is_best]
        kept.append(best)
        counts = np.diff(np.append(np.flatnonzero(is_best), len(left)))
        with np.errstate(all="ignore"):  # a box without area has an overlap of 0 / 0, which exceeds nothing
            overlaps = overlap(shapes[np.repeat(best, counts)], shapes[left])
        left = left[~(is_best | (overlaps > threshold))]
    found = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    return found[np.lexsort((found, -scores[found], groups[found]))]


def best_of_rows(kept: Array, scores: Array, rows: Array, most: int) -> Array:
    """Of the indices `kept`, at most `most` a row, by row and falling score; of equal scores the first index first."""
    ordered = kept[np.lexsort((kept, -scores[kept], rows[kept]))]
    row = rows[ordered]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # within its row
    return np.asarray(ordered[place < most])


def _area(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
