"""What becomes of the parts of a step: the next stage, a fuller batch, or a failure of that part alone."""

from collections.abc import Sequence
from typing import Protocol

from engines.inference.work import Begun
from engines.part import Part
from schemas.errors import RigflowError
from schemas.pipeline import OperatorStage
from workers.batching import part_of
from workers.costs import ModelCosts
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


async def hand_on(
    runner: HandsOver, together: Sequence[Task], stage: OperatorStage, outcomes: Sequence[Part | RigflowError]
) -> None:
    """Hand on the outcome of each task of a step of a stage."""
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
            await runner.hand_over(task, outcome)
        except Exception as error:  # an error of this part only
            await runner.failed(task, error)
