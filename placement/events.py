"""Simulated time: a clock of events, and resources that serve one request after the other."""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

Call = Callable[..., None]


class Clock:
    """Runs calls at their times, earlier ones first, those of one time in the order in which they were made."""

    __slots__ = ("_calls", "_number", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._calls: list[tuple[float, int, Call, tuple[Any, ...]]] = []
        self._number = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return not self._calls

    def after(self, seconds: float, call: Call, *given: Any) -> None:
        """Make a call so many seconds from now."""
        self._number += 1
        heapq.heappush(self._calls, (self.now_s + seconds, self._number, call, given))

    def run(self, until: Callable[[], bool]) -> None:
        """Run until `until` returns true, or until nothing is left to do."""
        calls = self._calls
        while calls and not until():
            self.now_s, _, call, given = heapq.heappop(calls)
            call(*given)


class Resource:
    """Serves `capacity` requests at a time, in the order in which they came; `used_s` of it so far."""

    __slots__ = ("_clock", "_free", "_waiting", "capacity", "kind", "name", "owner", "used_s")

    def __init__(self, clock: Clock, kind: str, owner: str, capacity: int = 1) -> None:
        self.kind, self.owner, self.name = kind, owner, f"{kind} {owner}"
        self.capacity = capacity
        self.used_s = 0.0
        self._clock = clock
        self._free = capacity
        self._waiting: deque[tuple[float, Call, tuple[Any, ...]]] = deque()

    def use(self, seconds: float, then: Call, *given: Any) -> None:
        """Take `seconds` of it, as soon as it is free, then call."""
        if seconds <= 0.0:
            then(*given)
        elif self._free:
            self._free -= 1
            self._begin(seconds, then, given)
        else:
            self._waiting.append((seconds, then, given))

    def _begin(self, seconds: float, then: Call, given: tuple[Any, ...]) -> None:
        self.used_s += seconds
        self._clock.after(seconds, self._end, then, given)

    def _end(self, then: Call, given: tuple[Any, ...]) -> None:
        if self._waiting:
            self._begin(*self._waiting.popleft())
        else:
            self._free += 1
        then(*given)


def in_turn(phases: tuple[tuple[Resource, float], ...], factor: float, then: Call, *given: Any) -> None:
    """Use resources one after the other, each for its seconds times `factor`, then call."""
    if not phases:
        then(*given)
        return
    resource, seconds = phases[0]
    resource.use(seconds * factor, in_turn, phases[1:], factor, then, *given)
