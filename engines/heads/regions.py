"""Connected regions of a bitmap and the smallest rectangles round them, in NumPy.

OpenCV's `findContours` and `minAreaRect` find the same for regions without holes; the contours of holes are not among
these. A place is the centre of a pixel, which has whole coordinates, as there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import acos, atan2, cos, hypot, pi, sin

import numpy as np

from engines.part import Array

_ARC = 0.25  # pixels that a round corner may be off


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle round `centre` (x, y), with its sides along the unit vector `along` and across."""

    centre: tuple[float, float]
    along: tuple[float, float]
    length: float
    width: float

    @property
    def corners(self) -> Array:
        """`[4, 2]`: the upper left one first, then clockwise, for one that is turned by less than 45 degrees."""
        (x, y), (dx, dy) = self.centre, self.along
        half, side = self.length / 2, self.width / 2
        points = [
            (x + a * half * dx - b * side * dy, y + a * half * dy + b * side * dx)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        return np.array(clockwise(points))

    def inside(self, rows: Array, columns: Array) -> Array:
        """Return which places are in it, its edge included."""
        (x, y), (dx, dy) = self.centre, self.along
        along, across = (columns - x) * dx + (rows - y) * dy, (rows - y) * dx - (columns - x) * dy
        slack = 1e-6
        return np.asarray((np.abs(along) <= self.length / 2 + slack) & (np.abs(across) <= self.width / 2 + slack))


def clockwise(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return four points in the order upper left, upper right, lower right, lower left.

    The two leftmost ones are on the left. Source: PaddleOCR, tools/infer/predict_det.py.
    """
    left, right = (sorted(each, key=lambda point: point[1]) for each in (sorted(points)[:2], sorted(points)[2:]))
    return [left[0], right[0], right[1], left[1]]


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of set pixels of a bitmap, row by row: `[first, last]` of `row`, and the number of their region."""

    row: Array
    first: Array
    last: Array
    region: Array


def runs_of(bitmap: Array) -> Runs:
    """Return the runs of `[H, W]` bool; those that touch, also at a corner, are of one region."""
    steps = np.diff(np.pad(bitmap, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, first = np.nonzero(steps == 1)
    last = np.nonzero(steps == -1)[1] - 1
    key = np.int64(bitmap.shape[1] + 2)
    begins = np.searchsorted(row * key + last, (row + 1) * key + first - 1, "left")
    ends = np.searchsorted(row * key + first, (row + 1) * key + last + 1, "right")
    counts = np.maximum(ends - begins, 0)
    upper = np.repeat(np.arange(len(row)), counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begins, counts)
    region = np.arange(len(row))
    while True:
        least = np.minimum(region[upper], region[lower])
        before = region.copy()
        for side in (upper, lower):
            np.minimum.at(region, before[side], least)
            np.minimum.at(region, side, least)
        while not np.array_equal(region, jumped := region[region]):
            region = jumped
        if np.array_equal(region, before):
            return Runs(row, first, last, np.unique(region, return_inverse=True)[1].reshape(-1))


def rectangles(bitmap: Array, least: float, most: int) -> Iterator[Rectangle]:
    """Yield the smallest rectangle round each of the `most` largest regions, if its sides are at least `least`."""
    runs = runs_of(bitmap)
    if not len(runs.row):
        return
    order = np.argsort(runs.region, kind="stable")
    row, first, last, region = (each[order] for each in (runs.row, runs.first, runs.last, runs.region))
    starts = np.flatnonzero(np.diff(region, prepend=-1))
    pixels = np.add.reduceat(last - first + 1, starts)
    tall = np.maximum.reduceat(row, starts) - np.minimum.reduceat(row, starts)
    wide = np.maximum.reduceat(last, starts) - np.minimum.reduceat(first, starts)
    kept = np.flatnonzero(np.hypot(tall, wide) >= least)
    kept = np.sort(kept[np.argsort(-pixels[kept], kind="stable")][:most])
    ends = np.append(starts[1:], len(region))
    for number in kept.tolist():
        part = slice(starts[number], ends[number])
        found = smallest_rectangle(_outline(row[part], first[part], last[part]))
        if min(found.length, found.width) >= least:
            yield found


def _outline(row: Array, first: Array, last: Array) -> list[tuple[int, int]]:
    """Return the leftmost and the rightmost place of each row of a region."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    rows = row[starts].tolist()
    left, right = np.minimum.reduceat(first, starts).tolist(), np.maximum.reduceat(last, starts).tolist()
    return [*zip(left, rows, strict=True), *zip(right, rows, strict=True)]


def hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the convex hull of points, counterclockwise. Source: Andrew (1979), the monotone chain."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    chains = []
    for each in (ordered, ordered[::-1]):
        chain: list[tuple[int, int]] = []
        for x, y in each:
            while len(chain) > 1:
                (x0, y0), (x1, y1) = chain[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        chains.append(chain[:-1])
    return [*chains[0], *chains[1]]


def grown(points: list[tuple[int, int]], by: float) -> list[tuple[int, int]]:
    """Return a convex polygon, clockwise as seen, with its sides moved outwards and round corners, in whole pixels.

    The corners have as many places as Clipper gives them. Source: Johnson (2014), Clipper 6.4, ClipperOffset::DoRound.
    """
    steps = min(pi / acos(1 - min(_ARC / by, 1)), by * pi) if by > 0 else 1.0
    made = []
    for number, (x, y) in enumerate(points):
        (px, py), (nx, ny) = points[number - 1], points[(number + 1) % len(points)]
        before, after = atan2(px - x, y - py), atan2(x - nx, ny - y)  # of the normals, to the outside
        turn = (after - before) % (2 * pi)
        count = max(1, round(turn * steps / (2 * pi)))
        angles = [*(before + step * 2 * pi / steps for step in range(count)), after]
        made += [(round(x + by * cos(angle)), round(y + by * sin(angle))) for angle in angles]
    return made


def smallest_rectangle(points: list[tuple[int, int]]) -> Rectangle:
    """Return the rectangle of least area round points; one of its sides lies on a side of their hull."""
    around = hull(points)
    if len(around) < 3:
        (x0, y0), (x1, y1) = around[0], around[-1]
        length = hypot(x1 - x0, y1 - y0)
        along = ((x1 - x0) / length, (y1 - y0) / length) if length else (1.0, 0.0)
        return Rectangle(((x0 + x1) / 2, (y0 + y1) / 2), along, length, 0.0)
    corners = np.array(around, np.float64)
    sides = np.roll(corners, -1, axis=0) - corners
    sides /= np.hypot(sides[:, 0], sides[:, 1])[:, None]
    (x, y), (dx, dy) = corners.T, sides.T[..., None]
    along, across = x * dx + y * dy, y * dx - x * dy
    low, high = (np.stack([each(along, axis=1), each(across, axis=1)]) for each in (np.min, np.max))
    best = int(np.argmin(np.prod(high - low, axis=0)))
    (length, width), (middle, off) = (high - low)[:, best].tolist(), ((high + low) / 2)[:, best].tolist()
    dx0, dy0 = sides[best].tolist()
    return Rectangle((middle * dx0 - off * dy0, middle * dy0 + off * dx0), (dx0, dy0), length, width)
