"""In which order a worker serves the queues that have messages: people first, then by the shares of the tenants."""

from collections.abc import Collection, Mapping

from placement.fair_share import BURST_S, FairShare
from schemas.jobs import Priority
from schemas.tenants import Tenant
from workers.in_flight import Queue

BULK_TURN = 8  # every eighth message is taken from bulk first, so that bulk work always progresses


class Turns:
    """The order of one worker's queues. `depth` of a queue: how many stages are in front of it."""

    def __init__(self, shares: FairShare) -> None:
        self.depth: dict[Queue, int] = {}
        self._shares, self.shared = shares, False  # whether several tenants share
        self._taken = 0
        self._last_taken: dict[Queue, int] = {}

    def weigh(self, tenants: Mapping[str, Tenant]) -> None:
        """Share among these tenants; without any, all have the same rights."""
        self.shared = bool(tenants)
        self._shares.weights = {name: tenant.weight for name, tenant in tenants.items()}

    def wait(self, queues: Collection[Queue]) -> None:
        """These queues have messages."""
        self._shares.wait({queue.tenant for queue in queues})

    def took(self, queue: Queue) -> None:
        """A message of a queue was taken."""
        self._taken += 1
        self._last_taken[queue] = self._taken

    def ahead(self, queue: Queue) -> bool:
        """Whether others wait whose tenant is to be served before that of a queue, by `placement.fair_share`."""
        most_s = BURST_S if queue.priority is Priority.INTERACTIVE else 0.0
        return self._ahead_s(queue) > most_s

    def turn(self, queue: Queue) -> tuple[bool, float, bool, int, int]:
        """Order of queues: interactive first (except in bulk's turn), unless their tenant is far ahead of its share;
        then the tenant whose share is next, and of that later stages, then the least recent.
        """
        first = Priority.BULK if self._taken % BULK_TURN == 0 else Priority.INTERACTIVE
        later = queue.priority != first
        tag = self._shares.tag(queue.tenant) if self.shared else 0.0
        far_ahead = self._ahead_s(queue) > BURST_S
        return later or far_ahead, tag, later, -self.depth[queue], self._last_taken.get(queue, 0)

    def _ahead_s(self, queue: Queue) -> float:
        return self._shares.ahead_s(queue.tenant) if self.shared else 0.0
