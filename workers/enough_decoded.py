"""Decides which queues a worker that decodes in advance requests nothing from, because it has decoded enough itself."""

import math
import time
from collections.abc import Mapping

from schemas.jobs import Priority
from workers.in_flight import Queue
from workers.messages_in_flight import MessagesInFlight

HELD_S = 0.1  # requests stay open so long without need or credit: to withdraw one costs a subscription
LOOK_EVERY_S = 1.0  # and are made again so often: parts that others sent must not wait until the last segment is done


class EnoughDecoded:
    """Skips the queues of bulk parts while parts of this worker's own segments are ready, except `HELD_S` a second.

    A request at such a queue counts as a worker that waits. Others would send it parts instead of computing them.
    """

    def __init__(self, in_flight: MessagesInFlight, depth: Mapping[Queue, int], concurrency: int) -> None:
        """`depth` of a queue: how many stages are in front of it. `concurrency`: see `Intake`."""
        self._in_flight, self._depth, self._decodes_ahead = in_flight, depth, concurrency > 1
        self._since_s = math.inf
        self._skipping = False

    def update(self) -> bool:
        """Look at what is decoded now; return whether queues are skipped: it has been enough for `HELD_S`."""
        now_s = time.monotonic()
        if not (self._decodes_ahead and self._in_flight.decoded_ahead):
            self._since_s = math.inf
        elif not 0.0 <= now_s - self._since_s < LOOK_EVERY_S:
            self._since_s = now_s
        self._skipping = now_s - self._since_s >= HELD_S
        return self._skipping

    def skips(self, queue: Queue) -> bool:
        """Whether the worker requests nothing from a queue, as of the last `update`."""
        return self._skipping and self._depth[queue] > 0 and queue.priority is Priority.BULK
