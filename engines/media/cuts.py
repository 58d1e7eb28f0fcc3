"""Plans where a stream is cut, by the times of its packets alone.

Packets come in decoding order. A cut is made in front of a keyframe if all earlier packets precede it in time as well.
A segment then carries the packets from its cut to the last one that its windows need. That packet lies behind the next
cut if pictures lead the next keyframe (they come after it and are shown before it: open GOPs) or if windows extend past
the cut. With a warm-up a segment carries the packets from the keyframe before the first frame that its warm-up needs.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

from schemas.grid import Clock, Grid

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """A planned segment: it owns `[start, end)` and carries packets `first ... stop - 1`, with those of its warm-up."""

    start: int
    end: int | None
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Packets:
    """Times of a stream's packets in decoding order: `pts [P]` int64, which are keyframes, and which are shown.

    Packets that are not shown are only needed to decode others. `by_rank`: the order of pts is not the order in which
    frames are shown, see engines.media.times.
    """

    pts: Times
    keys: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    time_base: Fraction
    by_rank: bool = False

    @property
    def last(self) -> int:
        """Return the pts of the last packet that is shown."""
        return int(self.pts[self.shown].max())

    @property
    def entries(self) -> npt.NDArray[np.bool_]:
        """Return where decoding may start: keyframes that all earlier packets precede. The first is excluded."""
        before = np.maximum.accumulate(self.pts)[:-1]
        return np.concatenate([[False], self.keys[1:] & self.shown[1:] & (self.pts[1:] > before)])


def plan_cuts(packets: Packets, grid: Grid, clock: Clock, segment_s: float) -> list[Cut]:
    """Return the segments of a stream: at least one; each lasts at least `segment_s`, except the last."""
    pts, entries = packets.pts, np.flatnonzero(packets.entries)
    borders = _borders(pts, entries, clock, segment_s)
    starts = [int(pts[packets.shown].min()), *(int(pts[border]) for border in borders)]
    ordered = np.sort(pts[packets.shown])
    firsts = [0, *(_first_carried(ordered, packets, grid, clock, border) for border in borders)]
    behind = np.minimum.accumulate(pts[::-1])[::-1]  # the earliest pts from each packet on
    cuts = []
    for number, end in enumerate(starts[1:]):
        last = _last_looked_at(ordered, grid, clock, starts[number], end)
        stop = int(np.searchsorted(behind, last, side="right"))
        if packets.by_rank:  # a packet before the next entry may give any of these frames
            after = int(np.searchsorted(entries, stop))
            stop = int(entries[after]) if after < len(entries) else len(pts)
        cuts.append(Cut(starts[number], end, firsts[number], stop))
    return [*cuts, Cut(starts[-1], None, firsts[-1], len(pts))]


def _borders(pts: Times, entries: npt.NDArray[np.int64], clock: Clock, segment_s: float) -> list[int]:
    """Return the packets in front of which a cut is made: entries that are `segment_s` or more apart."""
    borders: list[int] = []
    latest = clock.origin
    least = max(1, ceil(Fraction(str(segment_s)) / clock.time_base))
    for candidate in entries:
        if int(pts[candidate]) - latest >= least:
            borders.append(int(candidate))
            latest = int(pts[candidate])
    return borders


def _first_carried(ordered: Times, packets: Packets, grid: Grid, clock: Clock, border: int) -> int:
    """Return the packet from which a segment that begins at `border` carries them: its own first without a warm-up."""
    if grid.warm_up == 0:
        return border
    since = grid.warm_up_pts(clock, int(packets.pts[border]), ordered)  # type: ignore[arg-type]
    entries = np.flatnonzero(packets.entries)
    return int(entries[before - 1]) if (before := int(np.searchsorted(packets.pts[entries], since, "right"))) else 0


def _last_looked_at(ordered: Times, grid: Grid, clock: Clock, start: int, end: int) -> int:
    """Return the pts of the last frame that a window of `[start, end)` may need."""
    if grid.fps is not None:
        return grid.last_pts(clock, start, end)
    beyond = int(np.searchsorted(ordered, end)) + grid.frames - 2
    return int(ordered[min(beyond, len(ordered) - 1)])
