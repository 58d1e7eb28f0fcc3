"""ByteTrack: gives boxes of one object the same number from frame to frame, by where they are and how they move.

Source: Y. Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022, and its code,
https://github.com/ifzhang/ByteTrack (yolox/tracker/byte_tracker.py), whose constants these are. For each frame:

1. Boxes with a score above `high` are assigned to tracks, seen in the frame before or lost, where these are expected.
   A pair needs IoU * score > 0.2.
2. Boxes with a score above `low` are assigned to the remaining tracks of the frame before. A pair needs IoU > 0.5.
3. The remaining boxes above `high` confirm the tracks that the frame before began: IoU * score > 0.3. A track that is
   not confirmed ends.
4. Those that then remain begin a track if their score is at least `begin`; in the first frame it is confirmed at once.

A track that was not seen in more than `lost` frames ends. Of two tracks with an IoU above 0.85, one of them lost, that
with the shorter history ends, and its box has no number. A track gets its number when it is confirmed, from 1. Unlike
the authors' code, this one knows classes: a track has boxes of one class, unless `class_aware` is false. All numbers
are float64.

The default `high` and `begin` are lower than the authors' 0.6 and 0.7, which suit detectors that were trained on the
people of one data set: those of 80 classes give right boxes scores of 0.3 too. The packages ultralytics and supervision
begin at 0.25 as well.
"""

from dataclasses import dataclass

import numpy as np

from engines.part import Array
from engines.tracking.assignment import assign
from engines.tracking.kalman import Motion, corners, measured

MOST = 1000  # boxes of a frame, the ones with the highest scores, and tracks: others get no number
_FIRST, _SECOND, _CONFIRM, _SAME = 0.2, 0.5, 0.3, 0.85


@dataclass(frozen=True, slots=True)
class Limits:
    """The least scores: `high` of the first round, `low` of the second, `begin` of a new track; `lost` is in frames."""

    high: float = 0.25
    low: float = 0.1
    begin: float = 0.35
    lost: int = 30
    class_aware: bool = True


@dataclass(slots=True)
class _Boxes:
    """The boxes of a frame that are looked at, by falling score; `place` is where each was given."""

    place: Array
    corners: Array
    scores: Array
    classes: Array


@dataclass(slots=True)
class _Tracks:
    """The tracks after a frame, one entry each in every array.

    `number` is 0 until a track is confirmed. `seen` is its last frame, `since` its first. `lost`: not seen in the last
    frame.
    """

    motion: Motion
    number: Array
    kind: Array
    since: Array
    seen: Array
    lost: Array

    @classmethod
    def begun(cls, boxes: _Boxes, which: Array, frame: int) -> "_Tracks":
        """Begin a track with each of these boxes."""
        zeros, frames = np.zeros(len(which), np.int64), np.full(len(which), frame, np.int64)
        motion = Motion.begun(measured(boxes.corners[which]))
        return cls(motion, zeros, boxes.classes[which], frames, frames.copy(), np.zeros(len(which), np.bool_))

    def taken(self, chosen: Array) -> "_Tracks":
        """Return these tracks."""
        return _Tracks(self.motion.taken(chosen), *(getattr(self, name)[chosen] for name in _ENTRIES))

    def joined(self, other: "_Tracks") -> "_Tracks":
        """Return these tracks and others behind them."""
        entries = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ENTRIES)
        return _Tracks(Motion.joined([self.motion, other.motion]), *entries)


_ENTRIES = ("number", "kind", "since", "seen", "lost")


class ByteTrack:
    """Takes the boxes of one frame after the other, and gives each box the number of its track."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frame = 0
        self._confirmed = 0
        none = np.zeros(0, np.int64)
        self._tracks = _Tracks.begun(_Boxes(none, np.zeros((0, 4)), np.zeros(0), none), none, 0)

    def skip(self, frames: int) -> None:
        """Pass frames whose boxes are not known: tracks move on, and none of them is lost by that."""
        self._frame += frames
        self._keep(self._frame - self._tracks.seen <= self._limits.lost)
        tracks = np.arange(len(self._tracks.number))
        for _ in range(frames if len(tracks) else 0):
            self._predict(tracks)

    def update(self, boxes: Array, scores: Array, classes: Array) -> Array:
        """Return the number of each box's track `[M]` int64, 0 without one.

        `boxes [M, 4]`: x1, y1, x2, y2 in pixels; `scores [M]`; `classes [M]` int. Boxes with numbers that are not
        finite get none.
        """
        self._frame += 1
        found, tracks = self._looked_at(boxes, scores, classes), self._tracks
        confirmed = tracks.number > 0
        self._predict(np.flatnonzero(confirmed))
        high = found.scores > self._limits.high
        pairs = self._pairs(confirmed, high, found, _FIRST, weighted=True)
        seen, used = _marked(pairs, len(tracks.number), len(high))
        pairs += self._pairs(confirmed & ~seen & ~tracks.lost, ~high, found, _SECOND, weighted=False)
        pairs += self._pairs(~confirmed, high & ~used, found, _CONFIRM, weighted=True)
        seen, used = _marked(pairs, len(tracks.number), len(high))
        self._see(sorted(pairs), found)
        tracks.lost |= ~seen
        begun = np.flatnonzero(high & ~used & (found.scores >= self._limits.begin))
        begun = begun[: max(0, MOST - len(tracks.number))]
        new = _Tracks.begun(found, begun, self._frame)
        if self._frame == 1:
            new.number[:] = self._confirmed + 1 + np.arange(len(begun))
            self._confirmed += len(begun)
        numbers = np.zeros(len(boxes), np.int64)
        for track, box in pairs:
            numbers[found.place[box]] = tracks.number[track]
        numbers[found.place[begun]] = new.number
        self._keep((confirmed | seen) & (self._frame - tracks.seen <= self._limits.lost))
        self._tracks = self._tracks.joined(new)
        self._end_same()
        numbers[~np.isin(numbers, self._tracks.number)] = 0  # of tracks that ended
        return numbers

    def _looked_at(self, boxes: Array, scores: Array, classes: Array) -> _Boxes:
        corners_of, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64)
        usable = np.flatnonzero(np.isfinite(corners_of).all(axis=1) & (scores > self._limits.low))
        usable = usable[np.argsort(-scores[usable], kind="stable")[:MOST]]
        return _Boxes(usable, corners_of[usable], scores[usable], np.asarray(classes, np.int64)[usable])

    def _predict(self, which: Array) -> None:
        motion = self._tracks.motion
        motion.velocity[self._tracks.lost, 3] = 0  # as the authors do: the height of a track that is not seen stays
        motion.predict(which)

    def _pairs(self, tracks: Array, boxes: Array, found: _Boxes, least: float, weighted: bool) -> list[tuple[int, int]]:
        """Return the best pairs of these tracks and boxes whose overlap, `weighted` by scores, is above `least`."""
        rows, columns = np.flatnonzero(tracks), np.flatnonzero(boxes)
        if not len(rows) or not len(columns):
            return []
        alike = _overlaps(corners(self._tracks.motion.position[rows]), found.corners[columns])
        if weighted:
            alike = alike * found.scores[columns]
        if self._limits.class_aware:
            alike[self._tracks.kind[rows][:, None] != found.classes[columns]] = 0
        return [(int(rows[row]), int(columns[column])) for row, column in assign(alike - least)]

    def _see(self, pairs: list[tuple[int, int]], found: _Boxes) -> None:
        """Move tracks to the boxes in which they were seen, and confirm those that were seen for the second time."""
        if not pairs:
            return
        tracks, (which, boxes) = self._tracks, np.array(pairs).T
        tracks.motion.correct(which, measured(found.corners[boxes]))
        tracks.seen[which], tracks.lost[which] = self._frame, False
        tracks.kind[which] = found.classes[boxes]
        for track in which[tracks.number[which] == 0]:
            self._confirmed += 1
            tracks.number[track] = self._confirmed

    def _keep(self, kept: Array) -> None:
        if not kept.all():
            self._tracks = self._tracks.taken(np.flatnonzero(kept))

    def _end_same(self) -> None:
        """Of a track and a lost one in the same place, end that with the shorter history."""
        tracks = self._tracks
        seen, lost = np.flatnonzero(~tracks.lost), np.flatnonzero(tracks.lost)
        if not len(seen) or not len(lost):
            return
        places = corners(tracks.motion.position)
        lasted = tracks.seen - tracks.since
        kept = np.ones(len(tracks.number), np.bool_)
        for row, column in np.argwhere(_overlaps(places[seen], places[lost]) > _SAME):
            kept[lost[column] if lasted[seen[row]] > lasted[lost[column]] else seen[row]] = False
        self._keep(kept)


def _marked(pairs: list[tuple[int, int]], tracks: int, boxes: int) -> tuple[Array, Array]:
    """Return which tracks and which boxes are in pairs."""
    seen, used = np.zeros(tracks, np.bool_), np.zeros(boxes, np.bool_)
    for track, box in pairs:
        seen[track] = used[box] = True
    return seen, used


def _overlaps(boxes: Array, others: Array) -> Array:
    """Return the intersection over union of each of `boxes [N, 4]` with each of `others [M, 4]`, `[N, M]`."""
    start, end = (
        np.maximum(boxes[:, None, :2], others[None, :, :2]),
        np.minimum(boxes[:, None, 2:], others[None, :, 2:]),
    )
    common = np.prod(np.maximum(end - start, 0), axis=2)
    area, of_others = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others))
    whole = area[:, None] + of_others - common
    overlaps: Array = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return overlaps
