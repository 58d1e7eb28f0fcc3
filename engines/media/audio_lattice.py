"""Where windows of sound begin. Each boundary depends on the sound near it alone, however the media is cut.

All positions are samples at the pipeline's rate after second 0. Windows have `step` samples, the first ones fewer: they
begin at 0, `first`, `2 * first`, `4 * first` ... until `step`, so that the beginning of a media has its results early.
Without a reach a window begins at its place exactly. With a reach, a boundary lies where a frame of 20 ms has the least
energy, of those whose middle lies within `reach` of its place; of equal ones the nearest counts, then the earlier.
"""

from bisect import bisect_left
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
    """Windows at `rate` Hz of `step` samples, whose boundaries are moved by at most `reach` samples.

    The first windows have `step / 2 ** halvings` samples and more.
    """

    rate: int
    step: int
    reach: int = 0
    halvings: int = 0

    @classmethod
    def of(cls, rate: int, window_s: float, reach_s: float, halvings: int = 0) -> Self:
        """Return the lattice of windows of about `window_s` seconds, at least one sample."""
        exact, reach = Fraction(str(window_s)) * rate, Fraction(str(reach_s)) * rate
        return cls(rate, max(1, round(exact)), floor(reach), halvings)

    @property
    def first(self) -> int:
        """Return how many samples the first window has."""
        return self.step >> self.halvings

    @property
    def margin(self) -> int:
        """Return how many samples on both sides of a place decide where the boundary lies."""
        return self.reach + int(_FRAME_S * self.rate) if self.reach else 0

    def place(self, number: int) -> int:
        """Return where window `number` nominally begins."""
        if number > self.halvings:
            return (number - self.halvings) * self.step
        return self.step >> (self.halvings + 1 - number) if number else 0

    def windows(self, start: int, end: int) -> range:
        """Return the windows that nominally begin in `[start, end)`; `start` is at least 0."""
        return range(self._number(start), self._number(end))

    def windows_a_second(self, number: int) -> tuple[int, int]:
        """Return the rate of windows of the length of window `number`, as `MediaInfo.frame_rate`."""
        rate = Fraction(self.rate, self.place(number + 1) - self.place(number))
        return rate.numerator, rate.denominator

    def _number(self, position: int) -> int:
        """Return the first window that nominally begins at a position or later."""
        if position > self.step:
            return self.halvings + -(-position // self.step)
        return bisect_left(range(self.halvings + 2), position, key=self.place)

    def boundary(self, number: int, end: int, read: Callable[[int, int], Array]) -> int:
        """Return where window `number` begins, in a sound that ends at `end`; `end` for those after it.

        `read` returns the samples `[channels, n]` int32 of a range.
        """
        middle = self.place(number)
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
