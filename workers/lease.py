"""One delivered message and everything derived from it: settled once, when the last derived piece is durable."""

import time
from dataclasses import dataclass, field

from pipelines.pull import Delivery
from schemas.messages import Attempt, JobRef, Lane


@dataclass(frozen=True, slots=True)
class Hop:
    """A queue that a worker takes from: the stage behind it, and the lane."""

    pipeline: str
    stage: str
    lane: Lane


@dataclass(slots=True, eq=False)
class Lease:
    """Counts the pieces of one input that are still on their way; the input is acked after the last (law 1).

    A lease starts with one hold, that of the input itself. Whoever hands a piece on takes a `hold` for it first and
    drops it when the piece is durable. `spoil` marks the input for another attempt: pieces still queued are skipped.
    `expected_s` and `spent_s` are seconds of computing, for the credit of the intake. `attempts` are earlier ones that
    did not finish it; `begun`: ours has begun.
    """

    delivery: Delivery
    hop: Hop
    nbytes: int
    expected_s: float = 0.0
    spent_s: float = 0.0
    taken_s: float = field(default_factory=time.monotonic)
    spoiled_delay_s: float | None = None
    settled: bool = False
    job: JobRef | None = None  # known once the input was read
    attempts: tuple[Attempt, ...] = ()
    begun: bool = False
    _holds: int = 1

    @property
    def spoiled(self) -> bool:
        """Whether more work on this input is in vain."""
        return self.settled or self.spoiled_delay_s is not None

    @property
    def suspect(self) -> bool:
        """Whether an earlier attempt did not finish it: it may be what ended that one's worker."""
        return bool(self.attempts)

    def hold(self) -> None:
        """One more piece is on its way."""
        self._holds += 1

    async def drop(self) -> bool:
        """One piece is durable; True when that settled the input."""
        self._holds -= 1
        if self._holds > 0 or self.settled:
            return False
        self.settled = True
        if self.spoiled_delay_s is None:
            await self.delivery.ack()
        else:
            await self.delivery.retry(self.spoiled_delay_s)
        return True

    def spoil(self, delay_s: float) -> None:
        """Have the input delivered again, `delay_s` after its other pieces are through."""
        self.spoiled_delay_s = delay_s

    async def terminate(self, reason: str) -> None:
        """The input will never work; its failure and dead letter are durable."""
        if not self.settled:
            self.settled = True
            await self.delivery.terminate(reason)

    async def release(self) -> None:
        """Hand the input back now, for others to do; one that was spoiled after its pause."""
        if not self.settled:
            self.settled = True
            if self.spoiled_delay_s is None:
                await self.delivery.release()
            else:
                await self.delivery.retry(self.spoiled_delay_s)
