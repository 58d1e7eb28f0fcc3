"""Rates of work that threads repeat for a given time."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

Report = Callable[[str], None]  # takes what is measured next
Step = Callable[[], float]  # does a little work, and returns how many units it was


def rate_of(steps: Sequence[Step], seconds: float) -> float:
    """Units of work a second that `steps` do at the same time, each on one thread, called again until `seconds` ended.

    Every step is called once before the clock starts, and once at least after it. Raises what a step raises.
    """
    with ThreadPoolExecutor(len(steps), "profile") as threads:
        for first in [threads.submit(step) for step in steps]:
            first.result()
        began = time.perf_counter()
        counted = [threads.submit(_repeat, step, began + seconds) for step in steps]
        return sum(each.result() for each in counted) / (time.perf_counter() - began)


def _repeat(step: Step, until: float) -> float:
    units = step()
    while time.perf_counter() < until:
        units += step()
    return units
