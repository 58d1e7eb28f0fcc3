"""The time grid: which frames a window uses, and which segment owns which window.

All arithmetic is exact, on integers in the media's own time base, so that no machine and no cut can round differently.

*Tick* `k` of a sampled pipeline lies at `k / fps` seconds after the media's origin, and its picture is the last frame
with `pts <= tick`. Ticks before the first frame use the first frame, ticks after the last frame the last. Without `fps`
every frame is a tick of its own. *Window* `w` looks at ticks `w * stride ... w * stride + frames - 1`. The segment
`[start, end)` that contains a window's first tick owns the window. Before its own windows a segment has those of the
*warm-up*: models with a state run over them, and their answers are dropped.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MOST_WARM_UP = 1024  # windows before a segment


@dataclass(frozen=True, slots=True)
class Clock:
    """A media's own clock: `time_base` seconds a unit, `origin` the pts of its first presented frame."""

    time_base: Fraction
    origin: int

    def seconds(self, pts: int) -> float:
        """Seconds from the origin to `pts`."""
        return float((pts - self.origin) * self.time_base)


@dataclass(frozen=True, slots=True)
class Grid:
    """How a pipeline samples time: `fps` ticks a second (None: every frame), and windows of `frames` ticks.

    `warm_up`: how many windows a segment has before its own.
    """

    fps: Fraction | None = None
    frames: int = 1
    stride: int = 1
    warm_up: int = 0

    def tick_pts(self, clock: Clock, tick: int) -> int:
        """Largest pts that is not after tick `tick`: the tick's picture is the last frame with `pts <= tick_pts`."""
        ticks, units = self._ticks_per_units(clock)
        return clock.origin + tick * units // ticks

    def first_tick(self, clock: Clock, pts: int) -> int:
        """Return the first tick at or after `pts`."""
        ticks, units = self._ticks_per_units(clock)
        return -((clock.origin - pts) * ticks // units)

    def first_ticks(self, clock: Clock, times: Sequence[int]) -> list[int]:
        """Return `first_tick` of each of `times`."""
        ticks, units = self._ticks_per_units(clock)
        origin = clock.origin
        return [-((origin - pts) * ticks // units) for pts in times]

    def windows_in(self, clock: Clock, start: int, end: int) -> range:
        """Return the windows whose first tick lies in `[start, end)`."""
        ticks, units = self._ticks_per_units(clock)
        units *= self.stride
        first, stop = (-((clock.origin - pts) * ticks // units) for pts in (start, end))
        return range(max(0, first), max(0, stop))

    def windows_until(self, clock: Clock, start: int, last: int) -> range:
        """Return the windows whose first tick lies in `[start, last]`: those at a media's end, its last frame at
        `last`.
        """
        ticks, units = self._ticks_per_units(clock)
        units *= self.stride
        first, last_window = -((clock.origin - start) * ticks // units), (last - clock.origin) * ticks // units
        return range(max(0, first), max(0, last_window + 1))

    def shown(self, clock: Clock, rate: Fraction, last: int) -> tuple[Fraction, int]:
        """Return how many windows a second there are, and the pts of the last one.

        `rate` and `last` are those of the media's frames.
        """
        if self.fps is None:
            return rate, last
        last_window = self.windows_until(clock, clock.origin, last)[-1]
        return self.fps / self.stride, self.tick_pts(clock, last_window * self.stride)

    def with_warm_up(self, windows: range) -> range:
        """Return the windows of a segment that owns `windows`, with those of its warm-up before them."""
        return range(max(0, windows.start - self.warm_up), windows.stop) if windows else windows

    def warm_up_pts(self, clock: Clock, start: int, times: Sequence[int]) -> int:
        """Return the pts of the first frame that a segment from `start` on needs for its warm-up; at most `start`.

        `times`: those of the media's frames, ascending, at least from that frame on.
        """
        if self.warm_up == 0:
            return start
        if self.fps is None:
            first = max(bisect_left(times, start) - self.warm_up, bisect_left(times, clock.origin))
        else:
            window = max(0, self.windows_in(clock, start, start).start - self.warm_up)
            first = frame_at(times, self.tick_pts(clock, window * self.stride))
        return min(start, int(times[first])) if first < len(times) else start

    def last_pts(self, clock: Clock, start: int, end: int) -> int:
        """Return the largest pts that a window of the segment `[start, end)` may use; at least `end - 1`."""
        owned = self.windows_in(clock, start, end)
        if not owned:
            return end - 1
        return max(end - 1, self.tick_pts(clock, owned[-1] * self.stride + self.frames - 1))

    def _ticks_per_units(self, clock: Clock) -> tuple[int, int]:
        """Return a number of ticks and the number of the clock's units that they take. Fractions cost 20 times more."""
        if self.fps is None:
            raise ValueError("without fps ticks are frames, not times")
        base = clock.time_base
        return self.fps.numerator * base.numerator, self.fps.denominator * base.denominator


def frame_at(pts: Sequence[int], tick_pts: int) -> int:
    """Return the index of the last frame with `pts <= tick_pts` in ascending `pts`; 0 if there is none."""
    return max(0, bisect_right(pts, tick_pts) - 1)
