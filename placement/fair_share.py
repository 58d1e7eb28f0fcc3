"""Which tenant a worker serves next: weighted fair queueing in seconds of its device.

Each worker counts for itself, from what it takes: no process decides for the fleet. When every worker gives a tenant
its share of its own time, the fleet does.

The rules, in the order of the code:

1. What a tenant is served moves its tag forward, by the predicted seconds divided by its weight; what a message really
   took corrects that. Of the tenants that have work the lowest tag is next.
2. A tenant that had nothing to do begins again at the lowest tag of those that have: it saves nothing up, and borrows
   nothing. So others use what it leaves, and it has its share from its first message on.
3. A person who waits goes before bulk work of all tenants, as long as its tenant is at most `BURST_S` ahead.
"""

from collections import Counter
from collections.abc import Collection, Mapping

UNKNOWN_S = 1.0  # a message of unknown length counts so much until it ends: tenants take turns meanwhile
BURST_S = 20.0  # of its device, divided by the weight: longer than a clip takes, shorter than a film


class FairShare:
    """The tags of the tenants of one worker. Tenants without a weight have 1."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights: Mapping[str, float] = weights or {}
        self._tags: dict[str, float] = {}
        self._waiting: Collection[str] = ()
        self._in_hand: Counter[str] = Counter()  # messages that are not over
        self._last = 0.0  # the highest tag at which a message began

    def wait(self, waiting: Collection[str]) -> None:
        """These tenants have work that waits for this worker."""
        for tenant in waiting:
            self._tags[tenant] = self.tag(tenant)
        self._waiting = waiting

    def tag(self, tenant: str) -> float:
        """The place of a tenant, or the one at which it would begin now."""
        known = self._tags.get(tenant, 0.0)
        return known if self._has_work(tenant) else max(known, self._floor())

    def _has_work(self, tenant: str) -> bool:
        return tenant in self._waiting or self._in_hand[tenant] > 0

    def _floor(self) -> float:
        """The lowest tag of those that have work."""
        working = {*self._waiting, *(tenant for tenant, count in self._in_hand.items() if count > 0)}
        return min((self._tags.get(tenant, 0.0) for tenant in working), default=self._last)

    def serve(self, tenant: str, seconds: float) -> None:
        """A message of a tenant begins, which is predicted to take so many seconds of the device."""
        begin = self.tag(tenant)
        self._last = max(self._last, begin)
        self._tags[tenant] = begin + seconds / self.weights.get(tenant, 1.0)
        self._in_hand[tenant] += 1

    def end(self, tenant: str, more_s: float) -> None:
        """A message is over; it took so many seconds more than predicted, or fewer if that is negative."""
        self._tags[tenant] = self._tags.get(tenant, 0.0) + more_s / self.weights.get(tenant, 1.0)
        self._in_hand[tenant] -= 1

    def ahead_s(self, tenant: str) -> float:
        """How far a tenant is ahead of the first of the others that wait, in seconds by weight; 0: it is next."""
        tags = [self.tag(each) for each in self._waiting if each != tenant]
        return max(0.0, self.tag(tenant) - min(tags)) if tags else 0.0
