"""A simulated fleet that shares: each worker picks among the tenants by itself, as workers do (`placement.fair_share`).

It shares no code with them but the rule. Seconds are simulated.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from placement.fair_share import FairShare


@dataclass
class Load:
    """What one tenant asks for: `messages` (their true seconds on a worker of speed 1), by when they come."""

    weight: float
    arrivals: Sequence[tuple[float, float]]  # when, seconds


@dataclass
class Outcome:
    """What came of a simulation: seconds served to each tenant in `spans` in which all of `all_busy` had work."""

    served: Counter[str] = field(default_factory=Counter)
    served_while_all_wait: Counter[str] = field(default_factory=Counter)
    busy_s: float = 0.0
    possible_s: float = 0.0

    @property
    def work_conserving(self) -> float:
        """Seconds in which workers were busy, of those in which there was work for them."""
        return self.busy_s / self.possible_s if self.possible_s else 1.0


def simulate(loads: Mapping[str, Load], speeds: Sequence[float], error: float, seed: int, until_s: float) -> Outcome:
    """Run a fleet until all is done, or for `until_s`. Predictions are wrong by a factor of up to 1 + `error`."""
    dice, outcome = random.Random(seed), Outcome()
    weights = {name: load.weight for name, load in loads.items()}
    coming = sorted((at_s, name, seconds) for name, load in loads.items() for at_s, seconds in load.arrivals)
    arrivals, queues = deque(coming), {name: deque[float]() for name in loads}
    workers = [FairShare(weights) for _ in speeds]
    idle, running, now_s = list(range(len(speeds))), list[tuple[float, int, str, float]](), 0.0
    while (arrivals or running or any(queues.values())) and now_s < until_s:
        next_s = min(arrivals[0][0] if arrivals else float("inf"), running[0][0] if running else float("inf"))
        next_s = max(now_s, min(next_s, until_s))
        outcome.busy_s += len(running) * (next_s - now_s)
        waits = sum(len(queue) for queue in queues.values())
        outcome.possible_s += min(len(speeds), len(running) + waits) * (next_s - now_s)
        now_s = next_s
        while arrivals and arrivals[0][0] <= now_s:
            _, name, seconds = arrivals.popleft()
            queues[name].append(seconds)
        while running and running[0][0] <= now_s:
            _, worker, name, more_s = heapq.heappop(running)
            workers[worker].end(name, more_s)
            idle.append(worker)
        while idle and (waiting := [name for name, queue in queues.items() if queue]):
            worker = idle.pop(dice.randrange(len(idle)))
            share = workers[worker]
            share.wait(waiting)
            name = min(waiting, key=lambda each: (share.tag(each), each))
            took_s = queues[name].popleft() / speeds[worker]
            predicted_s = took_s * (1 + error) ** dice.uniform(-1, 1)
            share.serve(name, predicted_s)
            heapq.heappush(running, (now_s + took_s, worker, name, took_s - predicted_s))
            outcome.served[name] += took_s
            if len(waiting) == len(loads):
                outcome.served_while_all_wait[name] += took_s
    return outcome


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    squares = len(shares) * sum(each * each for each in shares)
    return sum(shares) ** 2 / squares if squares else 1.0
