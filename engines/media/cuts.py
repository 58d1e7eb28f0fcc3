"""Where a stream may be cut: arithmetic on the times of its packets alone.

Packets come in decoding order. A cut is made in front of a keyframe that all earlier packets precede in time as well;
a piece then needs its packets from there to the last one that it must look at. That one lies behind the next cut when
pictures lead the next keyframe (they come after it and are shown before it: open GOPs) and when windows reach over.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

from schemas.grid import Clock, Grid

Times = npt.NDArray[np.int64]

_LONGEST_GAP_S = 600
_DEEPEST_REORDERING = 32  # places between decoding and showing: 16 frames of two fields, the most any codec allows


@dataclass(frozen=True, slots=True)
class Cut:
    """A planned piece: it owns `[start, end)` and carries packets `first ... stop - 1`; `whole`: all, as it is."""

    start: int
    end: int | None
    first: int
    stop: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Packets:
    """Times of a stream's packets in decoding order: `pts [P]` int64, and which are keyframes, and which are shown.

    `pts` None: the source does not know when its frames are shown. An edit list hides packets that are only needed to
    decode others.
    """

    pts: Times | None
    keys: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    time_base: Fraction

    @property
    def trusted(self) -> bool:
        """Whether the times make sense: each packet has its own, none far out of order, no gap of many minutes."""
        if self.pts is None or not np.any(self.shown):
            return False
        order = np.argsort(self.pts, kind="stable")
        gaps = np.diff(self.pts[order])
        if not np.all(gaps > 0) or np.any(gaps > _LONGEST_GAP_S / self.time_base):
            return False
        return int(np.max(np.arange(len(order))[order] - np.arange(len(order)))) <= _DEEPEST_REORDERING

    @property
    def last(self) -> int | None:
        """Pts of the last packet that is shown; None where times can not be trusted."""
        return int(self.pts[self.shown].max()) if self.pts is not None and self.trusted else None

    @property
    def edited(self) -> bool:
        """Whether packets between shown ones are hidden, which no piece could say of its own packets."""
        if self.pts is None:
            return False
        shown, hidden = self.pts[self.shown], self.pts[~self.shown]
        return bool(np.any((hidden > shown.min()) & (hidden < shown.max())))


def plan_cuts(packets: Packets, grid: Grid, clock: Clock, segment_s: float) -> list[Cut]:
    """The pieces of a stream, one at least, each at least `segment_s` long but for the last."""
    if packets.pts is None or packets.edited or not packets.trusted:
        return [Cut(clock.origin, None, 0, len(packets.keys), whole=True)]
    pts = packets.pts
    borders = _borders(pts, packets.keys, clock, segment_s)
    starts = [clock.origin, *(int(pts[border]) for border in borders)]
    firsts = [0, *borders]
    ordered = np.sort(pts)
    behind = np.minimum.accumulate(pts[::-1])[::-1]  # the earliest pts from each packet on
    cuts = []
    for number, end in enumerate(starts[1:]):
        last = _last_looked_at(ordered, grid, clock, starts[number], end)
        stop = int(np.searchsorted(behind, last, side="right"))
        cuts.append(Cut(starts[number], end, firsts[number], stop))
    return [*cuts, Cut(starts[-1], None, firsts[-1], len(pts))]


def _borders(pts: Times, keys: npt.NDArray[np.bool_], clock: Clock, segment_s: float) -> list[int]:
    """Packets to cut in front of: keyframes that everything before them precedes, `segment_s` apart or more."""
    before = np.maximum.accumulate(pts)[:-1]
    safe = np.flatnonzero(keys[1:] & (pts[1:] > before)) + 1
    borders: list[int] = []
    latest = clock.origin
    least = max(1, ceil(Fraction(str(segment_s)) / clock.time_base))
    for candidate in safe:
        if int(pts[candidate]) - latest >= least:
            borders.append(int(candidate))
            latest = int(pts[candidate])
    return borders


def _last_looked_at(ordered: Times, grid: Grid, clock: Clock, start: int, end: int) -> int:
    """Pts of the last frame that a window of `[start, end)` may look at."""
    if grid.fps is not None:
        return grid.last_pts(clock, start, end)
    beyond = int(np.searchsorted(ordered, end)) + grid.frames - 2
    return int(ordered[min(beyond, len(ordered) - 1)])
