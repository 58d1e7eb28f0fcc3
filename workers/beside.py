"""Steps of the host beside a device that infers: parts of sound are taken from their decoders, and what models need of
them is made, on threads apart.

On the computing thread these steps would keep a fast GPU waiting: to find the speech in two minutes of sound takes as
long as to write it down. A machine with many cores does several of them at a time. Only a few parts are ahead of the
device, so memory stays bounded.
"""

import asyncio
from enum import Enum, auto
from typing import Protocol

from engines.machine import cores
from schemas.jobs import Priority
from schemas.pipeline import OperatorStage
from workers.batching import Batching, part_of
from workers.computing import ComputingThread, Step
from workers.encoding import Runs, run_apart
from workers.in_flight import Task
from workers.outcomes import HandsOver, hand_on

_MOST_THREADS = 3  # of each kind of step: with them the host is faster than a large GPU
_CORES = 4  # for each of them: other workers and the broker have some, too


class Kind(Enum):
    """What a step does."""

    TAKE = auto()  # a part that is decoded; needs no thread
    OPERATE = auto()  # run the operator of a stage
    PREPARE = auto()  # make in advance what an operator needs


class Hands(Runs, HandsOver, Protocol):
    """What these steps need of a runner."""

    async def decode(self, task: Task) -> None:
        """Take the next part of a segment. Raises decoding errors."""
        ...


class Beside:
    """Begins such steps from `run` to `close`, whenever `wake` is set. Each kind of step has so many threads, in each
    of which an operator works on one part at a time. `needed`: whether there are pipelines with such steps.
    """

    def __init__(self, runner: Hands, batching: Batching, threads: int = 0) -> None:
        """`threads` 0: as many as the machine's cores are enough for."""
        self._runner, self._batching = runner, batching
        threads = threads or max(1, min(_MOST_THREADS, cores() // _CORES))
        self._ahead = 2 * threads + 2  # parts between their decoder and the device
        self._free = {
            kind: [runner.computing.another() for _ in range(threads)] for kind in (Kind.OPERATE, Kind.PREPARE)
        }
        self._threads = [thread for kind in self._free.values() for thread in kind]
        self._running: dict[Task, asyncio.Task[None]] = {}
        self.wake, self.needed = asyncio.Event(), False

    @property
    def step(self) -> Step | None:
        """A step that runs now."""
        return next((thread.step for thread in self._threads if thread.step is not None), None)

    def look(self) -> None:
        """Look for steps that can run now."""
        if self.needed:
            self.wake.set()

    async def run(self) -> None:
        """Begin each step as soon as it can run, until cancelled."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            waiting = [task for task in self._batching.runnable() if task.pipeline.works_beside]
            held = len(self._running) + sum(task.part is not None for task in waiting)
            for task in sorted((task for task in waiting if task.beside), key=_turn):
                kind = _kind(task)
                if (task.pending or held >= self._ahead) if kind is Kind.TAKE else not self._free[kind]:
                    continue
                if task not in self._batching.runnable():
                    continue  # what has just begun is a poison candidate, and runs alone
                held += kind is Kind.TAKE
                self._begin(task, kind)

    async def close(self) -> None:
        """Begin no more."""
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        for thread in self._threads:
            thread.close()

    def _begin(self, task: Task, kind: Kind) -> None:
        thread = None if kind is Kind.TAKE else self._free[kind].pop()
        task.message.start(task)
        self._running[task] = asyncio.create_task(self._step(task, kind, thread))

    async def _step(self, task: Task, kind: Kind, thread: ComputingThread | None) -> None:
        try:
            await self._do(task, kind, thread)
        except Exception as error:
            await self._runner.failed(task, error)
        finally:
            self._running.pop(task)
            if thread is not None:
                self._free[kind].append(thread)
        # not in the `finally`: if this is cancelled, the task stays active and its message is handed back
        await task.message.finish(task)
        self._runner.woken()

    async def _do(self, task: Task, kind: Kind, thread: ComputingThread | None) -> None:
        stage, tick = task.pipeline.stage(task.stage), self._runner.heartbeats.tick
        if thread is None:
            await self._runner.decode(task)
        elif kind is Kind.PREPARE:
            part = await run_apart(self._runner, thread, task, task.pipeline.prepare, task.stage, part_of(task))
            task.prepared = True
            task.message.put_back(task, part)
        else:
            assert isinstance(stage, OperatorStage), "no others run on the host"
            operate, parts = task.pipeline.operate, [part_of(task)]
            outcomes = await run_apart(self._runner, thread, task, operate, stage, parts, tick)
            await hand_on(self._runner, [task], stage, outcomes)


def _kind(task: Task) -> Kind:
    if task.parts is not None:
        return Kind.TAKE
    return Kind.OPERATE if task.pipeline.beside(task.stage, True) else Kind.PREPARE


def _turn(task: Task) -> tuple[bool, int, float]:
    """Interactive first, then the latest stage, then the longest wait."""
    return task.message.queue.priority is not Priority.INTERACTIVE, -task.depth, task.since_s
