"""Non-maximum suppression on the CPU: exact and deterministic, for all rows and classes of a batch at once."""

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
    """Return the indices that greedy suppression keeps, at most `most` in a group, ordered by group and falling score.

    Only candidates of equal `groups [C]` suppress each other: a candidate is dropped if its overlap with a kept one of
    a higher score exceeds `threshold`. Of equal scores, the first counts as the higher one. `overlap` compares pairs of
    `shapes [C, K]`.

    Each round keeps the best remaining candidate of every group, and drops those that overlap with it. The result is
    that of a loop over the candidates of each group; the number of rounds is the largest number that a group keeps.
    """
    left = by_group(scores, groups)
    columns = np.ascontiguousarray(shapes.T)  # NumPy compares contiguous columns in half the time
    kept = []
    for _ in range(most):
        if not len(left):
            break
        group = groups[left]
        starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        counts = np.diff(np.append(starts, len(left)))
        best = left[starts]
        kept.append(best)
        with np.errstate(all="ignore"):  # boxes without area overlap by 0 / 0, which is not above any threshold
            pairs = (np.take(columns, numbers, axis=1).T for numbers in (np.repeat(best, counts), left))
            dropped = overlap(*pairs) > threshold
        dropped[starts] = True
        left = left[~dropped]
    found = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    return np.asarray(found[by_group(scores[found], groups[found])])


def by_group(scores: Array, groups: Array) -> Array:
    """Return `np.lexsort((-scores, groups))` of scores that are no NaN; of float32 in a fifth of the time.

    Scores and places become whole numbers that all differ, which NumPy sorts with vector instructions; it counts groups
    of 16 bits.
    """
    if scores.dtype != np.float32:
        return np.lexsort((-scores, groups))
    bits = (scores + np.float32(0)).view(np.uint32)  # the sum makes -0 and 0 equal
    rising = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))  # of falling scores
    order = np.argsort((rising.astype(np.uint64) << np.uint64(32)) | np.arange(len(bits), dtype=np.uint64))
    small = len(groups) and groups.min() >= 0 and groups.max() < 1 << 16
    sorted_groups = groups[order].astype(np.uint16) if small else groups[order]
    return np.asarray(order[np.argsort(sorted_groups, kind="stable")])


def best_of_rows(kept: Array, scores: Array, rows: Array, most: int) -> Array:
    """Return at most `most` of the indices `kept` for each row, ordered by row, falling score and index."""
    ordered = kept[np.lexsort((kept, -scores[kept], rows[kept]))]
    row = rows[ordered]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # within its row
    return np.asarray(ordered[place < most])


def _area(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
