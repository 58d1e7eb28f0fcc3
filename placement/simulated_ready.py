"""Parts that wait for a simulated worker's computing thread, and the batches that they make."""

import math
from collections import deque
from collections.abc import Iterable
from itertools import chain, islice

from placement.fleet import AHEAD_PARTS
from placement.simulated_machine import Held

Ready = tuple[Held, int]
"""A part that waits for the computing thread, and its message."""


def are_ahead(*ready: Iterable[Ready]) -> bool:
    """Whether enough parts are ready of segments that were decoded here."""
    own = (held for held, _ in chain(*ready) if held.stage == 0)
    return len(list(islice(own, AHEAD_PARTS))) == AHEAD_PARTS


class ReadyParts:
    """Parts by priority, in the order in which they came."""

    __slots__ = ("_delay_s", "_since_s", "by_priority")

    def __init__(self, delay_s: float) -> None:
        """`delay_s`: how long a batch that is not full waits for further parts."""
        self.by_priority: tuple[deque[Ready], deque[Ready]] = (deque(), deque())  # interactive, bulk
        self._delay_s = delay_s
        self._since_s = math.inf

    def add(self, held: Held, part: int) -> None:
        """A part waits."""
        self.by_priority[not held.message.piece.job.interactive].append((held, part))

    def full(self, held: Held) -> bool:
        """Whether as many parts wait as are computed together."""
        job = held.message.piece.job
        return len(self.by_priority[not job.interactive]) >= job.batch

    def is_step(self, held: Held) -> bool:
        """Whether no more parts wait than are computed together."""
        job = held.message.piece.job
        return len(self.by_priority[not job.interactive]) <= job.batch

    def waits_s(self, now_s: float, coming: int) -> float:
        """Seconds for which a batch waits to be full; 0: it does not. It waits for messages that are `coming`."""
        ready = self.by_priority[0] or self.by_priority[1]
        if not ready or self.full(ready[0][0]):
            self._since_s = math.inf
            return 0.0
        self._since_s = min(self._since_s, now_s)
        if coming:
            return math.inf
        return max(0.0, self._since_s + self._delay_s - now_s)

    def batch(self, ready: deque[Ready]) -> list[Ready]:
        """Take the part that waits longest, and others for the same stage."""
        self._since_s = math.inf
        batch = [ready.popleft()]
        held = batch[0][0]
        job = held.message.piece.job
        while ready and len(batch) < job.batch:
            other = ready[0][0]
            if other.message.piece.job.kind != job.kind or other.stage != held.stage:
                break
            batch.append(ready.popleft())
        return batch
