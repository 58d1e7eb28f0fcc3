"""How many messages a simulated worker fetches: credit in items, bytes and seconds, as workers/intake.py has it."""

import math
from collections import deque
from collections.abc import Collection, Sequence

from placement.fair_share import UNKNOWN_S, FairShare
from placement.fleet import AHEAD_PARTS, AHEAD_S, pieces_to_decode
from placement.simulated_machine import Held, WorkerRules

_PATIENCE_S = 0.005  # as workers/intake.py
_TAIL = 1 / 8  # the share of its own time that a long piece may wait with a worker
_SMALL_S = 1e-9
_MEAN_OF = 16  # messages; workers/throughput.py has as many groups of them


class Credit:
    """The credit of one worker. `concurrency`: pieces that its device decodes at a time."""

    def __init__(self, rules: WorkerRules, concurrency: int) -> None:
        self._rules = rules
        self._concurrency = concurrency
        self._pace_s: dict[tuple[int, int], float] = {}
        self._every_s: dict[tuple[int, int], deque[float]] = {}
        self.shares = FairShare(rules.weights)

    def pace_s(self, queue: tuple[int, int]) -> float:
        """Seconds that a message of a queue takes, as a moving average; infinite before the first one."""
        return self._pace_s.get(queue, math.inf)

    def message_s(self, queue: tuple[int, int]) -> float:
        """Seconds from the end of one message of a queue to that of the next, in the mean; 0 before the first one."""
        known = self._every_s.get(queue)
        return sum(known) / len(known) if known else 0.0

    def forget_shares(self) -> None:
        """A new process counts what it does for tenants from the beginning."""
        self.shares = FairShare(self._rules.weights)

    def serve(self, held: Held) -> None:
        """A message was fetched: its tenant is served."""
        self.shares.serve(held.message.queue.tenant, _predicted_s(held))

    def drop(self, held: Held) -> None:
        """A message was handed back, or ended: what its tenant was served is what it really took."""
        self.shares.end(held.message.queue.tenant, held.spent_s - _predicted_s(held))

    def took(self, held: Held, every_s: float) -> None:
        """A message is computed, and ended so long after the one before."""
        self.drop(held)
        queue, seconds = (held.message.piece.job.kind, held.stage), held.spent_s
        self._every_s.setdefault(queue, deque(maxlen=_MEAN_OF)).append(every_s)
        known = self._pace_s.get(queue)
        self._pace_s[queue] = seconds if known is None else 0.7 * known + 0.3 * seconds

    def wants(
        self,
        held: Collection[Held],
        undecoded: int,
        ready: int,
        nbytes: float,
        running: Sequence[Held],
        running_s: float,
    ) -> tuple[int, float]:
        """How many messages it fetches now, and in how many seconds that changes without an event; infinite: never.

        `held` are those that it has, of `nbytes`, some `undecoded`; `ready` parts wait to be computed; it computes on
        `running` since `running_s`.
        """
        busy = len(held) if self._concurrency == 1 else undecoded
        free = self._free(len(held), busy)
        if free <= 0 or nbytes >= self._rules.credit_bytes:
            return 0, math.inf
        remaining_s = _remaining_s(held, running, running_s)
        ahead = self._concurrency > 1 and ready >= AHEAD_PARTS and remaining_s >= AHEAD_S
        every_s = max(map(self.message_s, self._every_s), default=0.0)
        most = pieces_to_decode(self._concurrency, every_s, self._rules.prefetch_s)
        if most > busy and not ahead:
            return min(free, most - busy), math.inf
        if self._concurrency > 1 and every_s > self._rules.prefetch_s:
            return 0, remaining_s - AHEAD_S if ahead else math.inf  # no decoder would begin with it
        shortfall_s = self._prefetch_s(held) - remaining_s
        if shortfall_s <= _SMALL_S:
            return 0, -shortfall_s
        longest_s = max(each.expected_s for each in held)
        return min(free, 1 + int(shortfall_s / max(_PATIENCE_S / free, longest_s))), math.inf

    def _free(self, held: int, busy: int) -> int:
        most = max(self._rules.credit_items, 2 * self._concurrency - 2)
        if self._concurrency == 1 or most > held:
            return most - held
        return min(most - busy, most + 2 * self._concurrency - held)

    def _prefetch_s(self, held: Collection[Held]) -> float:
        """How long before its work ends it fetches more: less where a piece takes long."""
        longest_s = max(each.expected_s for each in held)
        most_s = self._rules.prefetch_s
        return min(most_s, max(most_s * most_s / longest_s, _TAIL * longest_s)) if longest_s else most_s


def _predicted_s(held: Held) -> float:
    return UNKNOWN_S if held.expected_s == math.inf else held.expected_s


def _remaining_s(held: Collection[Held], running: Sequence[Held], running_s: float) -> float:
    """Seconds until all is computed, by the time that pieces took so far."""
    remaining_s, share_s = 0.0, running_s / max(1, len(running))
    for each in held:
        if each in running:
            remaining_s += abs(each.expected_s - each.spent_s - share_s)
        else:
            remaining_s += max(0.0, each.expected_s - each.spent_s)
    return remaining_s
