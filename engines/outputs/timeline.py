"""Computes the times of a file that is joined from parts.

Decoding times (dts) are computed for the whole file: the sorted pts, delayed by the codec's reorder depth, so that no
part needs to know its neighbours.
"""

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from schemas.media import MediaInfo

# the most pictures by which encoders delay: num_reorder_frames of x264 and x265 with a B-pyramid, no preset has more;
# packets of AV1 come in the order of their pictures
REORDER = {"h264": 2, "hevc": 2, "av1": 0}


class Timed(NamedTuple):
    """The time at which a picture is shown and decoded, and its duration."""

    pts: int
    dts: int
    lasts: int


class Timeline:
    """The times of the whole file, in units of `time_base`: strictly rising pts, and their dts.

    `step` is the duration of a picture by the rate of the pipeline; `bent` is whether pts had to be moved to rise. mp4
    drops packets before 0: a media that begins there is moved by `shift`, in units of its own clock. `reorder` may be
    set before the first picture.
    """

    def __init__(self, media: MediaInfo) -> None:
        self.reorder = max(REORDER.values())
        self.time_base = media.clock.time_base
        rate = Fraction(*media.frame_rate) or Fraction(25)
        self.step = max(1, round(1 / (rate * self.time_base)))
        self.shift = max(0, -media.origin)
        self.bent = False
        self._media = media
        self._scale = 1
        self._late: deque[int] = deque()
        self._delay = 0  # from the first dts to the first pts
        self._last = -1
        self._over = False

    def extend(self, pts: Sequence[int], order: Sequence[int]) -> list[Timed]:
        """Return the times of the next pictures, in order of decoding: picture `order[n]` of those at the source's
        `pts`.
        """
        if self._last < 0:
            self._begin(pts[0] + self.shift)
        shown = []
        for time in pts:
            scaled = (time + self.shift) * self._scale
            self.bent |= scaled <= self._last
            self._last = max(scaled, self._last + 1)
            shown.append(self._last)
        self._late.extend(shown)
        times = [Timed(shown[which], self._late.popleft(), self.step) for which in order]
        self._over = pts[-1] == self._media.last
        return self._ended(times) if self._over else times

    @property
    def next_dts(self) -> int | None:
        """Return when the next picture is decoded; None after the last one of the media."""
        return None if self._over or not self._late else self._late[0]

    def _ended(self, times: list[Timed]) -> list[Timed]:
        """Return the times of the last pictures of the media, none of which is shown after its end.

        To FFmpeg a track of mp4 lasts from the first dts to the end of the last one, so the last one must not be too
        early.
        """
        if self._media.end is None:
            return times
        end = (self._media.end + self.shift) * self._scale
        times = [each._replace(lasts=max(1, end - each.pts)) if each.pts == self._last else each for each in times]
        pts, dts, _ = times[-1]
        next_pts = min((each.pts for each in times if each.pts > pts), default=end)  # shown after the last one decoded
        dts = max(dts, min(pts, end - self._delay - (next_pts - pts)))
        return [*times[:-1], Timed(pts, dts, max(1, end - self._delay - dts))]

    def _begin(self, first: int) -> None:
        """Set the dts of the first pictures before the first pts, but not before 0: mp4 would take that as its start.

        If the first pts is too near to 0, the file's clock is finer than the source's.
        """
        reorder = self.reorder
        if 0 < first < reorder:
            self._scale = reorder
            self.time_base /= reorder
            self.step *= reorder
        first *= self._scale
        apart = min(self.step, first // reorder) if first > 0 and reorder else self.step
        self._delay = apart * reorder
        self._late.extend(first - apart * early for early in range(reorder, 0, -1))
