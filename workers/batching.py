"""Chooses the next task of the computing thread, and the parts that share its batch.

Of all tasks that could run, the one furthest down its pipeline runs first, interactive before
bulk: finished work leaves before new work begins, so memory stays bounded without further limits, and an interactive
job waits for one step at most, not for a queue.

A batch that is not full waits for others until `max_delay_ms` after its first part came; meanwhile other tasks run.

A poison candidate, a message that an earlier attempt did not finish, runs alone: if the process ends, it is the cause.
"""

import time
from collections.abc import Sequence

from engines.part import Part
from schemas.jobs import Priority
from schemas.pipeline import OperatorStage
from workers.handoff import Handoff
from workers.in_flight import Task
from workers.intake import BULK_TURN
from workers.messages_in_flight import MessagesInFlight


class Batching:
    """Chooses among waiting tasks: `pick` the next one, `companions` the others of its batch."""

    def __init__(self, in_flight: MessagesInFlight, handoff: Handoff) -> None:
        self._in_flight = in_flight
        self._handoff = handoff
        self._turn = 0
        self.hurry = False  # the worker stops: batches do not wait until they are full

    async def pick(self) -> Task | None:
        """The next task: interactive first (except in bulk's turn), then the latest stage, then the longest wait."""
        while ready := self._ready():
            self._turn += 1
            first = Priority.BULK if self._turn % BULK_TURN == 0 else Priority.INTERACTIVE
            chosen = max(ready, key=lambda task: (task.message.queue.priority == first, task.depth, -task.since_s))
            chosen = self._filling(chosen, ready) or await self._feeding(chosen)
            if chosen in chosen.message.waiting:  # its job may have been cancelled during the request to the broker
                return chosen
        return None

    def due_in_s(self) -> float | None:
        """Seconds until a partial batch has to run; None: no batch waits."""
        dues = [due_s for task in self._runnable() if (due_s := self._due_s(task)) is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def spills(self, task: Task) -> bool:
        """Whether a task goes to its queue: one like it waits here already, and another worker waits for it there."""
        return self._like(task) > 0 and not task.pipeline.in_order(task.stage) and self._handoff.spill(task.queue)

    def companions(self, task: Task, stage: OperatorStage) -> list[Task]:
        """The other parts that wait for the same stage and fit into its batch, from any segment and job."""
        rows = _rows(task)
        if not rows:
            return []
        found = []
        for other in sorted(self._in_flight.waiting(), key=lambda each: each.since_s):
            apart = other.message is not task.message and (
                other.message.poison_candidate or task.message.poison_candidate
            )
            if other is task or other.part is None or apart or not other.alike(task):
                continue
            more = _rows(other)
            if more and rows + more <= task.pipeline.most_rows(stage):
                rows += more
                found.append(other)
        return found

    def _ready(self) -> list[Task]:
        """Tasks that can run now."""
        now_s = time.monotonic()
        return [task for task in self._runnable() if task.part is None or (self._due_s(task) or now_s) <= now_s]

    def _runnable(self) -> list[Task]:
        """All tasks that wait; a poison candidate begins after all other messages, and ends before the next begins."""
        waiting = list(self._in_flight.waiting())
        if not self._in_flight.poison_candidates:
            return waiting
        if any(message.begun for message in self._in_flight.messages):
            return [task for task in waiting if task.message.begun]
        return [task for task in waiting if task.message.poison_candidate] or waiting

    def _due_s(self, task: Task) -> float | None:
        """When a part runs in a partial batch, on the monotonic clock; None: it does not wait for others."""
        stage = task.pipeline.stage(task.stage)
        if (
            self.hurry
            or not isinstance(stage, OperatorStage)
            or not stage.batches
            or not stage.max_delay_ms
            or task.message.poison_candidate
        ):
            return None
        alike = [other for other in self._in_flight.waiting() if other.part is not None and other.alike(task)]
        if not _rows(task) or sum(map(_rows, alike)) >= task.pipeline.most_rows(stage):
            return None
        return min(other.since_s for other in alike) + stage.max_delay_ms / 1000

    def _filling(self, chosen: Task, ready: Sequence[Task]) -> Task | None:
        """A decode task whose next part is ready, while the batch that would run now is not full; or None."""
        stage = chosen.pipeline.stage(chosen.stage)
        if not isinstance(stage, OperatorStage) or not stage.batches:
            return None
        rows = sum(_rows(task) for task in self._in_flight.waiting() if task.alike(chosen))
        if rows >= chosen.pipeline.most_rows(stage):
            return None
        decoded = (
            task
            for task in ready
            if task.pipeline is chosen.pipeline and task.prefetch is not None and task.prefetch.ready
        )
        return next(decoded, None)

    async def _feeding(self, chosen: Task) -> Task:
        """`chosen`, or an earlier task that makes parts for other workers that wait at the queue of its stage."""
        before = [task for task in chosen.message.waiting if task.depth < chosen.depth]
        if before and self._like(chosen) == 1 and await self._handoff.hungry(chosen.queue):
            return max(before, key=lambda task: task.depth)
        return chosen

    def _like(self, task: Task) -> int:
        """How many tasks like this one wait here."""
        return sum(other.alike(task) for other in self._in_flight.waiting())


def part_of(task: Task) -> Part:
    """The part of a task that has one."""
    assert task.part is not None, "only a decode has no part yet"
    return task.part


def _rows(task: Task) -> int:
    """Rows of the model of its stage; a part that has none (no faces, no windows) waits for no other."""
    return task.pipeline.rows(task.stage, part_of(task))
