"""Finds models that crash the processes that load them; they are not loaded on that device again.

A worker reports which models it is loading before it loads them. If it ends during a load, each of them may be the
cause: workers on its device then load one model at a time and take no work meanwhile, so that the next crash has one
cause.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

CRASHES = 2.0  # after which a model is quarantined
KILLED = 0.5  # a SIGKILL from outside may have another cause: four of them count as two crashes
UNEXPLAINED_S = 600.0
TRUSTED = 3  # if more models than this crash on a device and none loads, the device is broken


class LoadCrashes:
    """One device's record of deaths while models were loaded, by the models' sha256."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: defaultdict[str, float] = defaultdict(float)
        self._last_s = 0.0
        self.quarantined: dict[str, str] = {}  # sha256 -> why

    @property
    def unexplained(self) -> bool:
        """Whether a model crashed a process within `UNEXPLAINED_S`, and it is not known which."""
        if (
            self._clock() - self._last_s > UNEXPLAINED_S
        ):  # they are no longer loaded: perhaps their pipeline was withdrawn
            self._crashes.clear()
        return bool(self._crashes)

    def loaded(self, models: Iterable[str]) -> None:
        """These models are no longer being loaded, and the process lives: they did not crash it."""
        for sha256 in models:
            self._crashes.pop(sha256, None)

    def died(self, loading: Sequence[str], weight: float, how: str, alone: bool) -> list[str]:
        """Count that a process ended (`how`) while it loaded models. Returns those that are quarantined now.

        `alone`: it loaded one model at a time and did nothing else.
        """
        self._last_s = self._clock()
        for sha256 in loading:
            self._crashes[sha256] += weight
        if not alone or len(loading) != 1 or self._crashes[loading[0]] < CRASHES:
            return []
        del self._crashes[loading[0]]
        self.quarantined[loading[0]] = f"its model ended the process that loaded it ({how})"
        return list(loading)


def oom_kills() -> int:
    """How many processes the kernel has ended on this machine because memory ran out (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
