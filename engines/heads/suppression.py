"""Non-maximum suppression on the CPU: exact and deterministic, for all rows and classes of a batch at once."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engines.native import loaded
from engines.part import Array

_SOURCE = Path(__file__).with_name("suppression.c")
_SLOWER = "boxes are suppressed by NumPy, which takes longer"


class Overlap(NamedTuple):
    """How much shapes overlap: `of` returns the overlap `[P]` of pairs of shapes, `[P, K]` each.

    `of_boxes`: it is the intersection over union of boxes. Otherwise extra values follow each box.
    """

    of: Callable[[Array, Array], Array]
    of_boxes: bool


def intersection_over_union(first: Array, second: Array) -> Array:
    """Intersection over union `[P]` of pairs `[P, 4]` of x1, y1, x2, y2, as torchvision's `box_iou`."""
    left_top = np.maximum(first[:, :2], second[:, :2])
    right_bottom = np.minimum(first[:, 2:4], second[:, 2:4])
    width, height = np.maximum(right_bottom - left_top, 0).T
    shared = width * height
    return np.asarray(shared / (_area(first) + _area(second) - shared))


BOX_OVERLAP = Overlap(intersection_over_union, of_boxes=True)


def suppress(shapes: Array, groups: Array, threshold: float, most: int, overlap: Overlap) -> Array:
    """Return the ascending indices of the shapes `[C, K]` that greedy suppression keeps, at most `most` in a group.

    `groups [C]` ascend, and in each of them the better shapes come first. A shape is dropped if its overlap with a
    better one that is kept exceeds `threshold`, which is 0 or more. Shapes of two groups do not suppress each other.
    """
    library = loaded(_SOURCE, _SLOWER) if overlap.of_boxes else None
    if library is None:
        return _in_rounds(shapes, groups, threshold, most, overlap)
    shapes, groups = np.ascontiguousarray(shapes, np.float32), np.ascontiguousarray(groups, np.int64)
    scratch, dropped = np.empty((5, len(shapes)), np.float32), np.empty(len(shapes), bool)
    given, sorted_groups, room, made = (
        ctypes.c_void_p(each.ctypes.data) for each in (shapes, groups, scratch, dropped)
    )
    count, at_most = ctypes.c_int64(len(shapes)), ctypes.c_int64(most)
    library.suppress(given, sorted_groups, count, ctypes.c_float(threshold), at_most, room, made)
    return np.flatnonzero(~dropped)


def _in_rounds(shapes: Array, groups: Array, threshold: float, most: int, overlap: Overlap) -> Array:
    """Each round keeps the best remaining shape of every group, and drops those that overlap with it.

    The result is that of a loop over the shapes of each group; the number of rounds is the largest number that a group
    keeps.
    """
    left = np.arange(len(groups))
    columns = np.ascontiguousarray(shapes.T)  # NumPy compares contiguous columns in half the time
    kept = [left[:0]]
    for _ in range(most):
        if not len(left):
            break
        group = groups[left]
        starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        best = left[starts]
        kept.append(best)
        with np.errstate(all="ignore"):  # boxes without area overlap by 0 / 0, which is not above any threshold
            numbers = np.repeat(best, np.diff(starts, append=len(left))), left
            dropped = overlap.of(*(np.take(columns, each, axis=1).T for each in numbers)) > threshold
        dropped[starts] = True
        left = left[~dropped]
    return np.sort(np.concatenate(kept))


def by_group(scores: Array, groups: Array) -> Array:
    """Return `np.lexsort((-scores, groups))` of scores that are no NaN; of float32 in a tenth of the time.

    Group, score and place become one whole number, and NumPy sorts such numbers with vector instructions.
    """
    places = max(0, len(scores) - 1).bit_length()
    small = len(scores) and groups.min() >= 0 and int(groups.max()).bit_length() + places <= 32
    if not small or scores.dtype != np.float32:
        return np.lexsort((-scores, groups))
    bits = (scores + np.float32(0)).view(np.uint32)  # the sum makes -0 and 0 equal
    rising = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))  # of falling scores
    keys = groups.astype(np.uint64) << np.uint64(32) | rising
    keys = np.sort(keys << np.uint64(places) | np.arange(len(scores), dtype=np.uint64))
    return np.asarray(keys & np.uint64((1 << places) - 1), np.int64)


def by_number(groups: Array) -> Array:
    """Return `np.argsort(groups, kind="stable")`; NumPy counts numbers of 16 bits, which takes a fifth of the time."""
    small = len(groups) and groups.min() >= 0 and groups.max() < 1 << 16
    return np.argsort(groups.astype(np.uint16) if small else groups, kind="stable")


def best_of_rows(ordered: Array, rows: Array, most: int) -> Array:
    """Return at most the first `most` of the indices `ordered` of each of the `rows`, which ascend in that order."""
    counts = np.bincount(rows[ordered])
    place = np.arange(len(ordered)) - np.repeat(np.cumsum(counts) - counts, counts)  # within its row
    return np.asarray(ordered[place < most])


def _area(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
