"""What becomes of the parts of a step: the next stage, a fuller batch, or a failure of that part alone."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from engines.inference.work import Begun
from engines.part import Part
from schemas.errors import RigflowError
from schemas.pipeline import OperatorStage
from workers.batching import part_of
from workers.computing import T
from workers.costs import ModelCosts
from workers.encoding import Encoding, Runs
from workers.in_flight import Task
from workers.telemetry import Meter


class HandsOver(Protocol):
    """What this needs of a runner."""

    meter: Meter
    costs: ModelCosts

    async def hand_over(self, task: Task, part: Part) -> None:
        """Give a part to the next stage."""
        ...

    async def failed(self, task: Task, error: Exception) -> None:
        """A task failed."""
        ...


class Operates(HandsOver, Runs, Protocol):
    """What a step of an operator needs of a runner."""

    async def compute(self, measuring: AbstractContextManager[None], tasks: Sequence[Task], call: Callable[[], T]) -> T:
        """Run a call for these tasks on the computing thread, measured by a block."""
        ...


async def operate(
    runner: Operates, together: Sequence[Task], stage: OperatorStage, full: bool, encoding: Encoding
) -> None:
    """Run the step of an operator on some tasks, and hand on what it gives; `full`: only batches that are."""
    tick = runner.heartbeats.tick
    if (steps := encoding.last_steps(together, stage)) is not None:
        call = functools.partial(steps.run, runner.computing, tick, full)
        await runner.compute(runner.measured.last(steps), together, call)
        await hand_on(runner, together, stage, steps.outcomes, functools.partial(encoding.send_next, steps))
        return
    parts = [part_of(task) for task in together]
    outcomes = await runner.on_device(together, together[0].pipeline.operate, stage, parts, tick, full)
    await hand_on(runner, together, stage, outcomes)


async def hand_on(
    runner: HandsOver,
    together: Sequence[Task],
    stage: OperatorStage,
    outcomes: Sequence[Part | RigflowError],
    hand_over: Callable[[Task, Part], Awaitable[None]] | None = None,
) -> None:
    """Hand on the outcome of each task of a step of a stage, the parts by `hand_over`, or else the runner's own."""
    hand_over = hand_over or runner.hand_over
    pipeline = together[0].pipeline
    name, runs = pipeline.spec.name, pipeline.counts(stage.name)
    runner.meter.batched(name, stage.name, runs)
    runner.costs.ran(pipeline.model(stage), runs.times)
    for task, outcome in zip(together, outcomes, strict=True):
        try:
            if isinstance(outcome, RigflowError):
                raise outcome
            if isinstance(outcome, Begun):
                task.message.put_back(task, outcome)
                continue
            runner.meter.held(name, task.stage, outcome.meta.held - part_of(task).meta.held)
            await hand_over(task, outcome)
        except Exception as error:  # an error of this part only
            await runner.failed(task, error)
