"""Decides which windows with a high score are cuts, and not flashes or motion in a film of few frames a second.

A window is two frames in a row; a cut is before its second frame. A high score is a cut when

1. no picture comes back: none of the `FLASH_S` seconds from the cut on looks like the one before it, and none of the
   `FLASH_S` seconds before it like the one after it. A flash fails the one where it begins, the other where it ends;
2. where frames are more than `SLOW_S` apart, so that motion alone may change the whole picture, the score is at least
   `SLOW_SCORE`, and no window next to it has a higher one;
3. no higher one is within `least_s`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

import numpy as np

from engines.models.shotchange import CHANNELS, COLOURS
from engines.part import Array

FLASH_S = 0.4
SLOW_S = 0.15
SLOW_SCORE = 0.93
LOOK = (6, 8)  # rows and columns
_SAMPLES = (3, 4)  # pixels of each field, down and across
_REGIONS, _BINS = (3, 4), 8  # of the histograms
_COLOURS, _OFFSETS = COLOURS.T, np.array([0, 127.5, 127.5])  # to luma and chroma
_NOISE = 4.0  # square grey levels: variance below which a picture has no structure
# On real clips, `alike` holds for frames of one shot up to 0.16 s apart, mostly up to 0.4 s, and never over a cut.
_SAME_STRUCTURE, _TINT, _MOTION = 0.5, 12.0, 0.38


@dataclass(frozen=True, slots=True)
class Frame:
    """A window's first frame: its time in seconds, and the score of a cut after it.

    `look` is as `looks` returns it, None if there are no pictures; `thumb` is a jpeg of the window's second frame,
    empty if there is none.
    """

    time: float
    score: float
    look: Array | None = None
    thumb: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """The start of a shot: its time in seconds, its score, and its jpeg (empty without a sheet)."""

    time: float
    score: float
    thumb: bytes


def looks(pixels: Array, rows: Array) -> Array:
    """Return coarse pictures of the frames `rows` of `pixels [F, H, W, 3]`: `[N, 6, 8, 3] uint8`, means of pixels."""
    some = pixels.reshape(len(pixels), -1).take(_places(*pixels.shape[1:3]), axis=1)
    means: Array = (some.sum(axis=1, dtype=np.uint16) // some.shape[1]).astype(np.uint8)
    return means[rows].reshape(len(rows), *LOOK, 3)


@lru_cache(maxsize=8)
def _places(height: int, width: int) -> Array:
    """Return `[12, 144]`: for each sample of a field, the positions of the values of all fields and colours in a
    picture.
    """
    down, across = (
        ((2 * np.arange(fields * samples) + 1) * side // (2 * fields * samples)).reshape(fields, samples)
        for fields, samples, side in zip(LOOK, _SAMPLES, (height, width), strict=True)
    )
    pixel = down.T[:, None, :, None] * width + across.T[None, :, None, :]  # samples down and across, fields likewise
    places: Array = pixel[..., None] * 3 + np.arange(3)
    return places.reshape(_SAMPLES[0] * _SAMPLES[1], -1)


def alike(a: Array, b: Array) -> bool:
    """Return whether two looks are of one scene: the same structure in any light, or a difference by motion alone.

    This is the measure of the model `shotchange`, on fields; docs/models.md has its formula.
    """
    first, second = (each @ _COLOURS for each in (a, b))
    structure = _structure_change(first[..., 0], second[..., 0])
    if structure < _SAME_STRUCTURE and np.abs(first - second)[..., 1:].mean() < _TINT:
        return True
    return bool(np.sqrt(_colour_change(first, second) * structure) < _MOTION)


def _structure_change(a: Array, b: Array) -> float:
    """Return one minus the correlation of two lumas, 0 to 1; noise counts as no structure."""
    a, b = a - a.mean(), b - b.mean()
    together = ((a * b).mean() + _NOISE) / np.sqrt(((a**2).mean() + _NOISE) * ((b**2).mean() + _NOISE))
    return float(np.clip(1 - together, 0, 1))


def _colour_change(a: Array, b: Array) -> float:
    """Return the difference of the histograms of regions, 0 to 1."""
    first, second = (
        np.maximum(0, 1 - np.abs((each + _OFFSETS)[..., None] * (_BINS - 1) / 255 - np.arange(_BINS)))
        .reshape(_REGIONS[0], LOOK[0] // _REGIONS[0], _REGIONS[1], LOOK[1] // _REGIONS[1], 3, _BINS)
        .mean(axis=(1, 3))
        for each in (a, b)
    )
    return float((np.abs(first - second).sum(axis=-1) / 2).mean(axis=(0, 1)) @ CHANNELS)


class CutFinder:
    """Finds the cuts of a video from its windows in order; holds the windows of at most `FLASH_S` seconds."""

    def __init__(self, threshold: float, least_s: float) -> None:
        self._threshold = threshold
        self._least_s = least_s
        self._frames: list[Frame] = []
        self._next = 0  # the window in `_frames` that is judged next
        self._since = 0.0  # when the current shot began
        self._rival: Cut | None = None  # the cut that ends it, unless a higher one comes within `least_s`

    def add(self, frame: Frame) -> Iterator[Cut]:
        """Take the next window; yield the cuts that are now certain."""
        self._frames.append(frame)
        while self._next + 2 < len(self._frames) and self._frames[self._next + 1].time + FLASH_S < frame.time:
            yield from self._judge_next()

    def close(self) -> Iterator[Cut]:
        """Yield the remaining cuts after the last window."""
        while self._next + 1 < len(self._frames):
            yield from self._judge_next()
        if self._rival is not None:
            yield self._rival
            self._rival = None

    def _judge_next(self) -> Iterator[Cut]:
        at = self._next
        before, after = self._frames[at], self._frames[at + 1]
        self._next += 1
        if before.score >= self._threshold and self._stands_out(at) and not self._is_flash(at):
            yield from self._weigh(Cut(after.time, before.score, before.thumb))
        while self._next > 1 and self._frames[1].time < after.time - FLASH_S:
            del self._frames[0]
            self._next -= 1

    def _stands_out(self, at: int) -> bool:
        """Return whether the picture changed after frame `at` by more than motion."""
        frame = self._frames[at]
        if self._frames[at + 1].time - frame.time <= SLOW_S:
            return True
        around = [self._frames[at + 1].score, *([self._frames[at - 1].score] if at else [])]
        return frame.score >= max(SLOW_SCORE, *around)

    def _is_flash(self, at: int) -> bool:
        """Return whether the picture before the cut after frame `at` returns, or the one after it was shown before."""
        before, after = self._frames[at], self._frames[at + 1]
        if before.look is None or after.look is None or alike(before.look, after.look):
            return False  # no picture disappeared, so none can return
        later = takewhile(lambda frame: frame.time <= after.time + FLASH_S, self._frames[at + 2 :])
        earlier = takewhile(lambda frame: frame.time >= after.time - FLASH_S, reversed(self._frames[:at]))
        return _seen(before.look, later) or _seen(after.look, earlier)

    def _weigh(self, cut: Cut) -> Iterator[Cut]:
        """Decide between `cut` and the one shortly before it, if any."""
        if self._rival is None:
            self._rival = cut if cut.time - self._since >= self._least_s else None
        elif cut.time - self._rival.time >= self._least_s:
            yield self._rival
            self._since, self._rival = self._rival.time, cut
        elif cut.score > self._rival.score:
            self._rival = cut


def _seen(look: Array, frames: Iterator[Frame]) -> bool:
    return any(each.look is not None and alike(look, each.look) for each in frames)
