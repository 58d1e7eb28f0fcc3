"""Tracks the boxes of a whole media, part by part in the order of the media.

It runs where the files are written: there the parts come in order whatever fleet made them, so a box has the same
number for every fleet. One frame is one step, however long it lasts (of media of a variable frame rate too). Frames
that were lost are steps as well: where a part has lost frames, or parts before it are missing, steps follow the time.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from pydantic import Field

from engines.options import Options
from engines.part import Array
from engines.tracking.bytetrack import ByteTrack, Limits
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta

_RATE = Fraction(30)  # frames a second, of media that do not state it
_MOST_FRAMES = 1 << 31  # that can be missing: forged times must not make larger numbers
_MOST_LOST = 10_000  # frames that a track can be lost for: forged rates must not make more steps


class TrackOptions(Options):
    """`track`: number the boxes of a film so that those of one object have one number. The others are ByteTrack's.

    Boxes with a score above `track_high` are assigned to tracks first, then those above `track_low`; a box with a score
    of at least `track_begin` begins a track; a track ends when it was not seen for `track_lost_s` seconds. With
    `track_by_class`, a track has boxes of one class.
    """

    track: bool = False
    track_high: float = Field(default=0.25, ge=0, le=1)
    track_low: float = Field(default=0.1, ge=0, le=1)
    track_begin: float = Field(default=0.35, ge=0, le=1)
    track_lost_s: float = Field(default=1.0, ge=0, le=60)
    track_by_class: bool = True


class Boxes(NamedTuple):
    """The boxes of a frame: `corners [M, 4]` (x1, y1, x2, y2), `scores [M]` and `classes [M]`."""

    corners: Array
    scores: Array
    classes: Array


class MediaTracker:
    """Numbers the boxes of one media; see the module. `frame` is the number of the last frame, from 1."""

    def __init__(self, options: TrackOptions, media: MediaInfo) -> None:
        rate = Fraction(*media.frame_rate) or _RATE
        lost = min(round(options.track_lost_s * rate), _MOST_LOST)
        limits = Limits(options.track_high, options.track_low, options.track_begin, lost, options.track_by_class)
        self._tracker = ByteTrack(limits)
        self._step = rate * media.clock.time_base  # frames a tick
        self._next: tuple[int, int] = (0, 0)  # segment and part
        self._pts: int | None = None  # of the last frame
        self._lost = False  # frames were lost since then
        self.frame = 0

    def number(self, meta: PartMeta, frames: Sequence[Boxes]) -> Iterator[Array]:
        """Yield the number of each box `[M]` int64, 0 without one, for each of the part's `frames`."""
        for boxes, missing in zip(frames, self._missing(meta), strict=True):
            if missing:
                self._tracker.skip(missing)
            self.frame += missing + 1
            yield self._tracker.update(*boxes)

    def _missing(self, meta: PartMeta) -> Iterator[int]:
        """Yield how many frames are missing before each of the part's."""
        self._lost |= meta.lost > 0 or (meta.key.segment, meta.key.part) != self._next
        self._next = _after(meta.key)
        for pts in meta.pts:
            passed = 1 if self._pts is None or not self._lost else round((pts - self._pts) * self._step)
            self._pts, self._lost = pts, meta.lost > 0
            yield min(max(passed - 1, 0), _MOST_FRAMES)


def boxes_of(corners: Array, scores: Array | None, classes: Array | None) -> Boxes:
    """Return the boxes of a frame; without scores they are sure, without classes of one class."""
    count = len(corners)
    return Boxes(
        corners,
        np.ones(count) if scores is None else scores,
        np.zeros(count, np.int64) if classes is None else classes,
    )


def _after(key: Key) -> tuple[int, int]:
    """Return segment and part that follow a part."""
    return (key.segment + 1, 0) if key.last else (key.segment, key.part + 1)
