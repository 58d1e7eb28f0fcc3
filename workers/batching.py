"""Chooses the next task of the computing thread, and the parts that share its batch.

Of all tasks that could run, the one furthest down its pipeline runs first, interactive before
bulk: finished work leaves before new work begins, so memory stays bounded without further limits, and an interactive
job waits for one step at most, not for a queue.

A batch that is not full waits while more can come soon: while earlier stages have work here, or the broker has messages
that this worker can take; but not longer than `workers.batch_wait` says. After that, or where a person waits for one of
its parts, it waits for others until `max_delay_ms` after its first part came. Rows that fill no batch may be left for
the next one.

A poison candidate, a message that an earlier attempt did not finish, runs alone: if the process ends, it is the cause.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from engines.part import Part
from engines.ports import RowKind
from schemas.jobs import Priority
from schemas.pipeline import OperatorStage
from workers.batch_wait import most_wait_s
from workers.continuing import is_urgent
from workers.handoff import Handoff
from workers.in_flight import State, Task
from workers.intake import PATIENCE_S, Intake
from workers.messages_in_flight import MessagesInFlight
from workers.stages import LoadedPipeline
from workers.telemetry import Meter
from workers.turns import BULK_TURN

_READ_S = 1.0  # most that a batch waits for a message that is being read
_WAITING_BYTES = 512 << 20  # of parts that wait for a batch; with more, it runs as it is


class Batching:
    """Chooses among waiting tasks: `pick` the next one, `companions` the others of its batch."""

    def __init__(self, in_flight: MessagesInFlight, intake: Intake, handoff: Handoff, meter: Meter) -> None:
        self._in_flight = in_flight
        self._intake = intake
        self._handoff = handoff
        self._meter = meter
        self._turn = 0
        self._waits: Mapping[Task, float] = {}  # for full batches, when `pick` looked last
        self._full: dict[tuple[int, str], bool] = {}  # by pipeline and stage, then
        self.hurry = False  # the worker stops: batches do not wait until they are full

    async def pick(self) -> Task | None:
        """The next task: interactive first (except in bulk's turn), then the latest stage, then the longest wait."""
        while ready := self._ready():
            self._turn += 1
            first = Priority.BULK if self._turn % BULK_TURN == 0 else Priority.INTERACTIVE
            chosen = max(ready, key=lambda task: (task.message.queue.priority == first, task.depth, -task.since_s))
            if (decoded := self._filling(chosen, ready)) is not None:
                return decoded
            if not self._handoff.is_long(chosen.pipeline.spec.name, chosen.stage):
                return chosen
            chosen = await self._feeding(chosen)
            if chosen in self.runnable():  # its job may have been cancelled during the request to the broker
                return chosen
        return None

    def due_in_s(self) -> float | None:
        """Seconds until a partial batch has to run, or may have to, after `pick` gave None; None: no batch waits."""
        dues = self._waits
        if not dues:
            return None
        due_in_s = max(0.0, min(dues.values()) - time.monotonic())
        some_come = any(self._coming(alike) for alike in _kinds(dues))
        return min(due_in_s, PATIENCE_S) if some_come else due_in_s

    def spills(self, task: Task) -> bool:
        """Whether a task goes to its queue: others do its stage, or enough like it waits here and they wait for it."""
        if self._intake.roles.gives_away(task.pipeline.spec.name, task.stage):
            return True
        stage, alike = task.pipeline.stage(task.stage), self._alike(task)
        enough = self.full(alike, stage) if isinstance(stage, OperatorStage) and stage.batches else bool(alike)
        return enough and not task.pipeline.in_order(task.stage) and self._handoff.spill(task.queue)

    def stays(self, pipeline: LoadedPipeline, stage: str) -> bool:
        """Whether all parts for a stage stay here: neither others do it, nor is it worth to send them one."""
        name = pipeline.spec.name
        return not self._intake.roles.gives_away(name, stage) and not self._handoff.is_long(name, stage)

    def companions(self, task: Task, stage: OperatorStage) -> list[Task]:
        """The other parts that wait for the same stage and fit into its batch, from any segment and job."""
        if not task.rows:
            return []
        found: list[Task] = []
        rows, most = _add({}, task), task.pipeline.most_batches(stage)
        for other in self._others(task):
            if _batches(rows) >= most:
                break
            if other.rows and not other.beside:
                found.append(other)
                _add(rows, other)
        return found

    def neighbours(self, task: Task, most: int) -> list[Task]:
        """Other parts that wait for the same stage, of messages that have begun, at most `most`."""
        return [other for other in self._others(task) if other.message.state is State.BEGUN][:most] if most else []

    def _others(self, task: Task) -> list[Task]:
        """Those for the same stage that may be in one step with a task, in their order."""
        alike = sorted(self._alike(task), key=lambda each: (not is_urgent(each.message), each.since_s))
        alone = task.message.poison_candidate
        return [
            other
            for other in alike
            if other is not task and (other.message is task.message or not (alone or other.message.poison_candidate))
        ]

    def full(self, tasks: Sequence[Task], stage: OperatorStage) -> bool:
        """Whether tasks of a stage have rows for as many full batches as are worth a step."""
        if not stage.batches or not tasks:
            return False
        rows: dict[RowKind, int] = {}
        for task in tasks:
            _add(rows, task)
        return _batches(rows) >= tasks[0].pipeline.most_batches(stage)

    def _ready(self) -> list[Task]:
        """Tasks that the computing thread can run now."""
        now_s, runnable = time.monotonic(), [task for task in self.runnable() if not task.beside]
        parts = [task for task in runnable if task.part is not None]
        self._full = {}
        dues = self._waits = self._dues(parts) if parts else {}
        ready = [task for task in runnable if task.part is None and not task.pending]
        return ready + [task for task in parts if dues.get(task, now_s) <= now_s]

    def runnable(self) -> list[Task]:
        """All tasks that wait; a poison candidate begins after all other messages, and ends before the next begins."""
        waiting = self._in_flight.waiting()
        if not self._in_flight.poison_candidates:
            return waiting
        if any(message.begun for message in self._in_flight.messages):
            return [task for task in waiting if task.message.begun]
        return [task for task in waiting if task.message.poison_candidate] or waiting

    def _dues(self, runnable: Sequence[Task]) -> dict[Task, float]:
        """When parts run in a partial batch, on the monotonic clock; a part that is left out does not wait for others.

        It is computed once for all parts of a stage: a hundred of them may wait for a batch, and this is called for
        each event.
        """
        dues: dict[Task, float] = {}
        for alike in _kinds(self._in_flight.waiting()):
            due_s = self._due_s(alike)
            if due_s is not None:
                dues |= dict.fromkeys(alike, due_s)
        if not dues:
            return dues
        waits = (task for task in runnable if task in dues and task.rows and not task.message.attempts)
        return {task: dues[task] for task in waits}

    def _due_s(self, alike: Sequence[Task]) -> float | None:
        """When those of the parts of one stage run in a partial batch that wait for others; None: none of them does."""
        task = alike[0]
        stage = task.pipeline.stage(task.stage)
        if self.hurry or not isinstance(stage, OperatorStage) or not stage.batches or not stage.max_delay_ms:
            return None
        full = self._full[id(task.pipeline), task.stage] = self.full(alike, stage)
        if full:
            return None
        urgent = any(is_urgent(other.message) for other in alike)
        delay_s = stage.max_delay_ms / 1000
        if not urgent and self._more_to_come(alike):
            counts = self._meter.stages[task.pipeline.spec.name, task.stage]
            delay_s = max(delay_s, most_wait_s(counts.batches, counts.seconds))
        return min(other.since_s for other in alike) + delay_s

    def _more_to_come(self, alike: Sequence[Task]) -> bool:
        """Whether more parts for the batch of these will come soon, and there is memory for them."""
        task = alike[0]
        if sum(other.nbytes for other in alike) >= _WAITING_BYTES:
            return False
        return self._coming(alike) or any(
            (other.prefetch is None or other.prefetch.ready)
            and other.pipeline is task.pipeline
            and other.depth < task.depth
            for other in self.runnable()
        )

    def _coming(self, alike: Sequence[Task]) -> bool:
        """Whether messages for the batch of these may come from the broker soon, or have come and are being read."""
        task = alike[0]
        now_s, pipeline = time.monotonic(), task.pipeline.spec.name
        for message in self._in_flight.messages:
            if message.queue.pipeline == pipeline and message.unread and now_s - message.taken_s < _READ_S:
                return True
        counts = self._meter.stages[task.pipeline.spec.name, task.stage]
        rows = sum(sum(other.rows.values()) for other in alike)
        return self._intake.coming(task, rows * counts.seconds / counts.rows if counts.rows else math.inf)

    def _filling(self, chosen: Task, ready: Sequence[Task]) -> Task | None:
        """A decode task whose next part is ready, while the batch that would run now is not full; or None."""
        stage = chosen.pipeline.stage(chosen.stage)
        if not isinstance(stage, OperatorStage) or not stage.batches:
            return None
        full = self._full.get((id(chosen.pipeline), chosen.stage))
        if self.full(self._alike(chosen), stage) if full is None else full:
            return None
        decoded = (
            task
            for task in ready
            if task.pipeline is chosen.pipeline and task.prefetch is not None and task.prefetch.ready
        )
        return next(decoded, None)

    async def _feeding(self, chosen: Task) -> Task:
        """`chosen`, or an earlier task that makes parts for other workers that wait at the queue of its stage."""
        # where all decoders have work, others get what is ready: to wait for the rest would leave the device idle
        waits = len(self._in_flight.messages) < self._intake.concurrency
        earlier = (task for task in chosen.message.waiting if task.depth < chosen.depth and not task.beside)
        before = [task for task in earlier if waits or not task.pending]
        if before and not self._more_than_a_step(chosen) and await self._handoff.workers_wait(chosen.queue):
            return max(before, key=lambda task: task.depth)
        return chosen

    def _more_than_a_step(self, task: Task) -> bool:
        """Whether a task like this one waits here that its step will not take."""
        stage = task.pipeline.stage(task.stage)
        together = self.companions(task, stage) if isinstance(stage, OperatorStage) and stage.batches else ()
        return len(self._alike(task)) > 1 + len(together)

    def _alike(self, task: Task) -> list[Task]:
        """The tasks for the same stage that wait here."""
        return [other for other in self._in_flight.waiting() if other.part is not None and other.alike(task)]


def _kinds(tasks: Iterable[Task]) -> Collection[list[Task]]:
    """Return the tasks that have a part, those of one stage of a pipeline together."""
    kinds: dict[tuple[int, str], list[Task]] = {}
    for task in tasks:
        if task.part is not None:
            kinds.setdefault((id(task.pipeline), task.stage), []).append(task)
    return kinds.values()


def part_of(task: Task) -> Part:
    """The part of a task that has one."""
    assert task.part is not None, "only a decode has no part yet"
    return task.part


def _add(rows: dict[RowKind, int], task: Task) -> dict[RowKind, int]:
    """Add the rows of a task to those of others."""
    for kind, count in task.rows.items():
        rows[kind] = rows.get(kind, 0) + count
    return rows


def _batches(rows: Mapping[RowKind, int]) -> int:
    """How many full batches there are rows for, of the kind of rows that has most of them."""
    return max([count // kind.limit for kind, count in rows.items()], default=0)
