"""A pool of processes, as multiprocessing's documentation recommends: `imap` over tasks, answers in order.

With segments it does rigflow's own work without a broker: the best rate of a system in which nothing may fail.
"""

from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.chain import Arrived, Finished, Task, Unit, chain_of, units_of, write


def one(task: Task, unit: Unit) -> Finished:
    """A unit, in a process of the pool."""
    return chain_of(task)(unit)


class Pool:
    """`workers` processes that live as long as it does."""

    def __init__(self, task: Task, workers: int, split: bool) -> None:
        self._task = task
        self._workers = workers
        self._split = split

    async def start(self) -> None:
        self._pool = get_context("fork").Pool(self._workers)

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        finished = []
        for each in self._pool.imap(partial(one, self._task), units_of(self._task, paths, self._split)):
            arrived()
            finished.append(each)
        write(self._task, paths, finished, out)

    async def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def broker_bytes(self) -> int:
        return 0


make = Pool
