"""How many messages a simulated worker fetches: credit in items, bytes and seconds, as workers/intake.py has it."""

import math
from collections.abc import Collection, Sequence

from placement.simulated_machine import Held, WorkerRules

_PATIENCE_S = 0.005  # as workers/intake.py
_TAIL = 1 / 8  # the share of its own time that a long piece may wait with a worker
_SMALL_S = 1e-9


class Credit:
    """The credit of one worker. `concurrency`: pieces that its device decodes at a time."""

    def __init__(self, rules: WorkerRules, concurrency: int) -> None:
        self._rules = rules
        self._concurrency = concurrency
        self._pace_s: dict[tuple[int, int], float] = {}

    def pace_s(self, queue: tuple[int, int]) -> float:
        """Seconds that a message of a queue takes, as a moving average; infinite before the first one."""
        return self._pace_s.get(queue, math.inf)

    def took(self, queue: tuple[int, int], seconds: float) -> None:
        """A message of a queue took so long."""
        known = self._pace_s.get(queue)
        self._pace_s[queue] = seconds if known is None else 0.7 * known + 0.3 * seconds

    def wants(
        self, held: Collection[Held], undecoded: int, nbytes: float, running: Sequence[Held], running_s: float
    ) -> tuple[int, float]:
        """How many messages it fetches now, and in how many seconds that changes without an event; infinite: never.

        `held` are those that it has, of `nbytes`, some `undecoded`; it computes on `running` since `running_s`.
        """
        busy = len(held) if self._concurrency == 1 else undecoded
        free = self._free(len(held), busy)
        if free <= 0 or nbytes >= self._rules.credit_bytes:
            return 0, math.inf
        if self._concurrency > busy:
            return min(free, self._concurrency - busy), math.inf
        shortfall_s = self._prefetch_s(held) - _remaining_s(held, running, running_s)
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


def _remaining_s(held: Collection[Held], running: Sequence[Held], running_s: float) -> float:
    """Seconds until all is computed, by the time that pieces took so far."""
    remaining_s, share_s = 0.0, running_s / max(1, len(running))
    for each in held:
        if each in running:
            remaining_s += abs(each.expected_s - each.spent_s - share_s)
        else:
            remaining_s += max(0.0, each.expected_s - each.spent_s)
    return remaining_s
