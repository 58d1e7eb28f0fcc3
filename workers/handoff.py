"""Decides whether a part stays in this process or goes to its queue, where other workers wait.

A part goes to the next stage in the same process. Only when one waits there already and other workers wait idle
at that stage's queue, it goes to the queue: so the whole fleet infers a long segment that one worker decodes.
"""

import asyncio
import time

from pipelines.broker import Broker
from schemas.errors import RigflowError
from workers.in_flight import Queue
from workers.intake import Intake

ANSWER_S = 0.1  # if the broker takes longer, the part stays here
NEWS_S = 0.1  # how long an answer of the broker is current; `OLD_S`: for parts made because of it
OLD_S = 10 * NEWS_S


class Handoff:
    """Counts idle workers at the queues of this worker's own stages; asks the broker when a long step is ahead."""

    def __init__(self, broker: Broker, intake: Intake, worth_s: float) -> None:
        """A step shorter than `worth_s` is not worth a trip to another worker."""
        self._broker = broker
        self._intake = intake
        self._worth_s = worth_s
        self._step_s: dict[tuple[str, str], float] = {}
        self._hungry: dict[Queue, tuple[int, float]] = {}  # how many wait, and when that was seen

    def took(self, pipeline: str, stage: str, seconds: float) -> None:
        """Record how long a step of a stage took: the next one is expected to take as long."""
        self._step_s[pipeline, stage] = seconds

    async def hungry(self, queue: Queue) -> bool:
        """Whether others wait idle at a queue of ours, and its next step is long enough to matter."""
        if self._step_s.get((queue.pipeline, queue.stage), 0.0) < self._worth_s:
            return False
        count, seen_s = self._hungry.get(queue, (0, 0.0))
        if not count or time.monotonic() - seen_s > NEWS_S:
            count = await self._waiting(queue)
            self._hungry[queue] = count, time.monotonic()
        return count > 0

    def spill(self, queue: Queue) -> bool:
        """Whether a part shall go to the queue: true once for each request that waited there."""
        count, seen_s = self._hungry.get(queue, (0, 0.0))
        if not count or time.monotonic() - seen_s > OLD_S:
            return False
        self._hungry[queue] = count - 1, seen_s
        return True

    async def _waiting(self, queue: Queue) -> int:
        """How many requests stand at a queue that are not ours, and that nothing there will answer."""
        stream = self._broker.names.work_stream(queue.pipeline, queue.stage)
        try:
            async with asyncio.timeout(ANSWER_S):
                info = await self._broker.api(f"CONSUMER.INFO.{stream}.{queue.priority.value}")
        except (RigflowError, TimeoutError):
            return 0  # publishing reports a broker that is away
        return max(0, int(info["num_waiting"]) - int(info["num_pending"]) - self._intake.outstanding(queue))
