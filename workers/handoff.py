"""Decides whether a part goes to the next stage in this process or through the queue of that stage.

A part stays in the process, unless another part waits for the same stage already and other workers wait idle at its
queue. Then it goes to the queue, so that the whole fleet infers a long segment that one worker decodes. Those that
share the GPU of this worker do not count: together they infer no more than it does alone.
"""

import asyncio
import math
import time

from pipelines.broker import Broker
from schemas.errors import RigflowError
from workers.in_flight import Queue
from workers.intake import Intake

ANSWER_S = 0.1  # if the broker takes longer, the part stays here
FRESH_S = 0.1  # how long an answer of the broker is current; `OLD_S`: for parts that were made because of it
OLD_S = 10 * FRESH_S


class Handoff:
    """Counts idle workers at the queues of this worker's stages. Asks the broker only before long steps."""

    def __init__(self, broker: Broker, intake: Intake, worth_s: float) -> None:
        """`worth_s`: a step must take longer than this to be worth the transfer to another worker."""
        self._broker = broker
        self._intake = intake
        self._worth_s = worth_s
        self.gpu_peers = 0  # others on this worker's GPU: the broker does not say who waits, so that all of them may
        self._step_s: dict[tuple[str, str], float] = {}
        self._waiting: dict[Queue, tuple[int, float]] = {}  # how many requests wait, and when that was read

    def took(self, pipeline: str, stage: str, seconds: float) -> None:
        """Record how long a step of a stage took: the next one is expected to take as long."""
        self._step_s[pipeline, stage] = seconds

    def is_long(self, pipeline: str, stage: str) -> bool:
        """Whether the last step of a stage took `worth_s`."""
        return self._step_s.get((pipeline, stage), 0.0) >= self._worth_s

    async def workers_wait(self, queue: Queue) -> bool:
        """Whether other workers wait at a queue that this worker hosts, and a step of its stage takes `worth_s`."""
        if not self.is_long(queue.pipeline, queue.stage):
            return False
        count, seen_s = self._waiting.get(queue, (0, -math.inf))
        if time.monotonic() - seen_s > FRESH_S:
            count = await self.idle_at(queue) - self.gpu_peers
            self._waiting[queue] = count, time.monotonic()
        return count > 0

    def spill(self, queue: Queue) -> bool:
        """Whether a part goes to the queue: true once for each request that waited there."""
        count, seen_s = self._waiting.get(queue, (0, 0.0))
        if count <= 0 or time.monotonic() - seen_s > OLD_S:
            return False
        self._waiting[queue] = count - 1, seen_s if count > 1 else -math.inf
        return True

    async def idle_at(self, queue: Queue) -> int:
        """How many requests of other workers wait at a queue that has no message for them."""
        stream = self._broker.names.work_stream(queue.pipeline, queue.stage)
        await asyncio.sleep(0)  # requests that this worker has just withdrawn are withdrawn at the broker first
        own = self._intake.outstanding(queue)
        try:
            async with asyncio.timeout(ANSWER_S):
                consumer = self._broker.names.consumer(queue.priority, queue.tenant)
                info = await self._broker.api(f"CONSUMER.INFO.{stream}.{consumer}")
        except (RigflowError, TimeoutError):
            return 0  # publishing reports a broker that is away
        return max(0, int(info["num_waiting"]) - int(info["num_pending"]) - own)
