"""The times of a file that is joined from parts.

Times of decoding (dts) are made anew over the whole file: the sorted pts, late by x264's reorder depth, so that no part
needs to know its neighbours.
"""

from collections import deque
from fractions import Fraction

from schemas.messages import MediaInfo

REORDER = 2  # pictures by which x264 can be late: num_reorder_frames with a B-pyramid; no preset has more


class Timeline:
    """Times of the whole file, in units of `time_base`: strictly rising pts, and the dts that go with them.

    `step` is how long a picture lasts by the rate of the pipeline, or else of the source; `bent` is whether pts had to
    be moved to rise.
    """

    def __init__(self, media: MediaInfo) -> None:
        self.time_base = media.clock.time_base
        rate = Fraction(*media.window_rate) or Fraction(*media.frame_rate) or Fraction(25)
        self.step = max(1, round(1 / (rate * self.time_base)))
        self.bent = False
        self._scale = 1
        self._late: deque[int] = deque()
        self._last = -1

    def extend(self, pts: list[int]) -> tuple[list[int], list[int]]:
        """`(pts, dts)` of the next pictures: pts in order of showing, dts in order of decoding and one more."""
        if not self._late:
            self._begin(pts[0])
        shown = []
        for time in pts:
            scaled = time * self._scale
            self.bent |= scaled <= self._last
            self._last = max(scaled, self._last + 1)
            shown.append(self._last)
        self._late.extend(shown)
        return shown, [*(self._late.popleft() for _ in shown), self._late[0]]

    def _begin(self, first: int) -> None:
        """The dts of the first pictures lie before the first pts, but not before 0: mp4 would take that for its start.

        Where 0 is too near for that, the file's clock runs finer than the source's.
        """
        if 0 < first < REORDER:
            self._scale = REORDER
            self.time_base /= REORDER
            self.step *= REORDER
        first *= self._scale
        apart = min(self.step, first // REORDER) if first > 0 else self.step
        self._late.extend(first - apart * early for early in range(REORDER, 0, -1))
