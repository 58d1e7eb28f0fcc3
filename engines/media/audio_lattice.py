"""Where windows of sound begin. Each boundary depends on the sound near it alone, however the media is cut.

All positions are samples at the pipeline's rate after second 0. Window k nominally begins at `k * step`. Without a
reach it begins there exactly. With a reach, boundary k lies where a frame of 20 ms has the least energy, of those whose
middle lies within `reach` of `k * step`; of equal ones the nearest to it counts, then the earlier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Self

import numpy as np

from engines.part import Array

_FRAME_S, _HOP_S = Fraction(1, 50), Fraction(1, 100)
_SHIFT = 16  # of samples of 32 bits: sums of squares of 16 bits fit in 64


@dataclass(frozen=True, slots=True)
class Lattice:
    """Windows at `rate` Hz of `step` samples, whose boundaries are moved by at most `reach` samples."""

    rate: int
    step: int
    reach: int = 0

    @classmethod
    def of(cls, rate: int, window_s: float, reach_s: float) -> Self:
        """Return the lattice of windows of about `window_s` seconds, at least one sample."""
        exact, reach = Fraction(str(window_s)) * rate, Fraction(str(reach_s)) * rate
        return cls(rate, max(1, round(exact)), floor(reach))

    @property
    def windows_a_second(self) -> tuple[int, int]:
        """Return the rate of windows, as `MediaInfo.frame_rate`."""
        rate = Fraction(self.rate, self.step)
        return rate.numerator, rate.denominator

    @property
    def margin(self) -> int:
        """Return how many samples on both sides of `k * step` decide where boundary k lies."""
        return self.reach + int(_FRAME_S * self.rate) if self.reach else 0

    def windows(self, start: int, end: int) -> range:
        """Return the windows that nominally begin in `[start, end)`; `start` is at least 0."""
        return range(-(-start // self.step), -(-end // self.step))

    def boundary(self, number: int, end: int, read: Callable[[int, int], Array]) -> int:
        """Return where window `number` begins, in a sound that ends at `end`; `end` for those after it.

        `read` returns the samples `[channels, n]` int32 of a range.
        """
        middle = number * self.step
        if middle >= end:
            return end
        if not self.reach or not number:
            return middle
        frame, hop = int(_FRAME_S * self.rate), max(1, int(_HOP_S * self.rate))
        places = np.arange(-(self.reach // hop), self.reach // hop + 1) * hop
        places = places[middle + places < end]
        first = middle + int(places[0]) - frame // 2
        samples = read(first, middle + int(places[-1]) + frame - frame // 2)
        loud = np.sum((samples >> _SHIFT).astype(np.int64) ** 2, axis=0)
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(loud)])
        begin = middle + places - frame // 2 - first
        energy = sums[begin + frame] - sums[begin]
        best = np.flatnonzero(energy == energy.min())
        return middle + int(places[best[np.argmin(np.abs(places[best]), axis=0)]])
