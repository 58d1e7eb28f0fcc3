"""The step of an operator and the encoding of what it gives, in one call of the computing thread.

A trip to that thread and back costs two switches between threads and a look at all tasks, which is more than a short
encoding takes.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeGuard

from engines.inference.work import Begun
from engines.part import Part, Tick
from schemas.errors import RigflowError
from schemas.pipeline import EncodeStage, OperatorStage
from workers.batching import part_of
from workers.computing import ComputingThread, Step
from workers.in_flight import Task, charge


class LastSteps:
    """The last two steps of some tasks of one stage: `run` once, on the computing thread.

    Afterwards `outcomes` has what the operator made of each part, with the seconds that it took; `bodies`, by task, the
    encoded result of each part that the operator gave, or its error; `took` the seconds of each stage that ran.
    """

    def __init__(
        self, tasks: Sequence[Task], stage: OperatorStage, encode: EncodeStage, cards: Callable[[Part], tuple[str, ...]]
    ) -> None:
        self.tasks, self.stage, self.encode = tasks, stage, encode
        self._cards = cards
        self.outcomes: list[Part | RigflowError] = []
        self.bodies: dict[Task, bytes | Exception] = {}
        self.took: list[tuple[str, float]] = []

    def run(self, computing: ComputingThread, tick: Tick, only_full: bool) -> None:
        """Operate, and encode what is done. Raises what the operator raises for all parts."""
        pipeline, parts, began_s = self.tasks[0].pipeline, [part_of(task) for task in self.tasks], time.monotonic()
        try:
            outcomes = pipeline.operate(self.stage, parts, tick, only_full)
        finally:
            now_s = time.monotonic()
            self.took.append((self.stage.name, now_s - began_s))
            charge(self.tasks, now_s - began_s)
        self.outcomes = [
            task.charged(outcome, self._cards(outcome)) if _is_done(outcome) else outcome
            for task, outcome in zip(self.tasks, outcomes, strict=True)
        ]
        done = {task: part for task, part in zip(self.tasks, self.outcomes, strict=True) if _is_done(part)}
        if done:
            computing.step = Step(pipeline.spec.name, self.encode.name, now_s)
            self.bodies = dict(zip(done, pipeline.encode_all([*done.values()], tick), strict=True))
            self.took.append((self.encode.name, time.monotonic() - now_s))


def _is_done(outcome: Part | RigflowError) -> TypeGuard[Part]:
    return not isinstance(outcome, RigflowError | Begun)
