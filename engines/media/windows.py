"""Groups frames in time order into windows: applies the time grid of `schemas.grid`, one frame at a time.

This module does not read pixels: a *picture* is any object that the caller pairs with its pts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from engines.part import Array
from schemas.grid import Clock, Grid

Picture = TypeVar("Picture")
Row = TypeVar("Row")


class MissingFrame(Exception):
    """A frame that a tick needs did not come out of the decoder."""


@dataclass(frozen=True, slots=True)
class Span:
    """The range that a segment owns, `[start, end)` in pts of the media's clock; `end` None: to the media's end.

    `since`: the pts of the first frame that its warm-up needs, `start` without one.
    """

    clock: Clock
    start: int
    end: int | None
    since: int

    def owns(self, pts: int) -> bool:
        """Return whether the segment owns the frame at `pts`."""
        return self.start <= pts and (self.end is None or pts < self.end)

    def begins(self, pts: int) -> bool:
        """Return whether a window begins at the frame at `pts`, of the segment or of its warm-up."""
        return self.since <= pts and (self.end is None or pts < self.end)

    def windows(self, grid: Grid, last: int) -> range:
        """Return its windows on a sampled grid, and those of its warm-up.

        `last` is the pts of its last frame, used at the end of the media.
        """
        if self.end is None:
            return grid.with_warm_up(grid.windows_until(self.clock, self.start, last))
        return grid.with_warm_up(grid.windows_in(self.clock, self.start, self.end))


class Tick(NamedTuple, Generic[Picture]):
    """Tick `number` at `pts`, and the picture that it uses."""

    number: int
    pts: int
    picture_pts: int
    picture: Picture


@dataclass(frozen=True, slots=True)
class Slice(Generic[Row]):
    """A run of windows: the pts of each one's first tick, the rows they need, and `index [W, T]` into the rows.

    `times` are the rows', rising.
    """

    pts: tuple[int, ...]
    times: list[int]
    rows: list[Row]
    index: Array


def every_frame(frames: Iterator[tuple[int, Picture]], grid: Grid, span: Span) -> Iterator[Tick[Picture]]:
    """Yield the ticks of a grid without `fps`: each frame at which a window begins, and those that the last ones need.

    Frames before the warm-up are left out.
    """
    begun = seen = 0
    last: tuple[int, Picture] | None = None
    for pts, picture in frames:
        if pts < span.since:
            continue
        begun += span.begins(pts)
        if seen >= begun + grid.frames - 1:
            return
        last = pts, picture
        yield Tick(seen, pts, *last)
        seen += 1
    if last is not None and begun:
        for number in range(seen, begun + grid.frames - 1):
            yield Tick(number, last[0], *last)


def last_before(frames: Iterator[tuple[int, Picture]], grid: Grid, span: Span, end: int) -> Iterator[Tick[Picture]]:
    """Yield the ticks of a sampled grid: each uses the last frame at or before it, or else the first frame.

    `end` is the pts of the last frame, even if that frame is missing. Frames that no tick uses may be left out.
    """
    numbers = needed_ticks(grid, span.windows(grid, end))
    timed = ((number, grid.tick_pts(span.clock, number)) for number in numbers)
    number, tick_pts = next(timed, (None, 0))
    last: tuple[int, Picture] | None = None
    for pts, picture in frames:
        last = last or (pts, picture)
        while number is not None and tick_pts < pts:
            yield Tick(number, tick_pts, *last)
            number, tick_pts = next(timed, (None, 0))
        if number is None:
            return
        last = pts, picture
    while last is not None and number is not None:
        yield Tick(number, tick_pts, *last)
        number, tick_pts = next(timed, (None, 0))


def needed_ticks(grid: Grid, windows: range) -> Iterator[int]:
    """Yield the ticks that `windows` need, ascending, each once."""
    seen = 0
    for window in windows:
        first = window * grid.stride
        yield from range(max(first, seen), first + grid.frames)
        seen = first + grid.frames


def used_times(times: Sequence[int], grid: Grid, clock: Clock, windows: range, since: int) -> list[int]:
    """Return those of the frames' `times`, ascending, that ticks of `windows` use which are not before `since`.

    Looks at each frame once, however many windows a message states.
    """
    firsts = grid.first_ticks(clock, (since, *times[1:]))  # of each frame; the first one has all before
    used = []
    for pts, first, after in zip(times, firsts, [*firsts[1:], None], strict=True):
        begin = max(first, firsts[0])
        window = max(windows.start, (begin - grid.frames) // grid.stride + 1)  # the first that ends behind `begin`
        if window < windows.stop and (after is None or max(begin, window * grid.stride) < after):
            used.append(pts)
    return used


def slices(
    ticks: Iterator[Tick[Picture]],
    grid: Grid,
    limit: int,
    convert: Callable[[Picture], Row],
    is_empty: Callable[[int], bool] = lambda pts: False,
) -> Iterator[Slice[Row]]:
    """Yield the windows that `ticks` complete, `limit` at a time; each picture is converted once, when its tick comes.

    `is_empty`: returns whether no window begins at a pts, because its picture is unknown.
    """
    pts_of: dict[int, tuple[int, int]] = {}  # tick -> its own pts, and its picture's
    rows: dict[int, Row] = {}
    starts: list[int] = []
    frames, stride = grid.frames, grid.stride
    for tick in ticks:
        number, pts, picture_pts, picture = tick
        pts_of[number] = pts, picture_pts
        if picture_pts not in rows:
            rows[picture_pts] = convert(picture)
        start = number + 1 - frames
        if start % stride == 0 and start in pts_of and not is_empty(pts_of[start][0]):
            starts.append(start)
        if len(starts) == limit:
            yield _slice(starts, grid.frames, pts_of, rows)
            after = starts[-1] + grid.stride
            pts_of = {number: both for number, both in pts_of.items() if number >= after}
            kept = {picture_pts for _, picture_pts in pts_of.values()}
            rows = {pts: row for pts, row in rows.items() if pts in kept}
            starts = []
    if starts:
        yield _slice(starts, grid.frames, pts_of, rows)


def _slice(
    starts: Sequence[int], frames: int, pts_of: Mapping[int, tuple[int, int]], rows: Mapping[int, Row]
) -> Slice[Row]:
    looks = [[pts_of[number][1] for number in range(start, start + frames)] for start in starts]
    used = sorted({pts for window in looks for pts in window})
    position = {pts: row for row, pts in enumerate(used)}
    index = np.array([[position[pts] for pts in window] for window in looks], np.int32)
    return Slice(tuple(pts_of[start][0] for start in starts), used, [rows[pts] for pts in used], index)
