"""What the computing thread does next, and what it does together: the tasks that wait in one worker.

Of all tasks that could run, the one furthest down its pipeline runs first, the interactive lane before the bulk lane:
finished work leaves before new work begins, so memory stays bounded without limits of its own, and a person waits for
one step at most, not for a queue.

A suspect, an input that an earlier attempt did not finish, runs alone: if it ends the process, only itself is to blame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.device import Ahead
from engines.part import Part
from schemas.messages import Lane
from schemas.pipeline import InferStage
from workers.handoff import Handoff
from workers.intake import BULK_TURN, Hand
from workers.lease import Hop, Lease
from workers.stages import Line


@dataclass(slots=True, eq=False)
class Task:
    """Something the computing thread can do next: go on with a segment's decoding, or take a part one stage further."""

    lease: Lease
    line: Line
    stage: str
    part: Part | None = None
    parts: Iterator[Part] | None = None

    @property
    def depth(self) -> int:
        """How far down its pipeline this is."""
        return self.line.depth[self.stage]

    @property
    def hop(self) -> Hop:
        """The queue in front of its stage."""
        return Hop(self.line.spec.name, self.stage, self.lease.hop.lane)

    def alike(self, other: "Task") -> bool:
        """Whether another task is for the same stage of the same line."""
        return self.stage == other.stage and self.line is other.line


@dataclass(frozen=True, slots=True)
class Step:
    """What the computing thread does now, since `began_s` of the monotonic clock."""

    pipeline: str
    stage: str
    began_s: float


class Tasks:
    """The tasks that wait here; `pick` takes the next, `companions` what goes into one batch with it."""

    def __init__(self, hand: Hand, handoff: Handoff) -> None:
        self._hand = hand
        self._handoff = handoff
        self._waiting: list[Task] = []
        self._turn = 0

    def add(self, task: Task) -> None:
        """One more can run."""
        self._waiting.append(task)

    async def pick(self) -> Task | None:
        """The next task: interactive first (but for bulk's own turn), then furthest down, then first come."""
        self._waiting = [task for task in self._waiting if not task.lease.spoiled]
        ready = self._ready()
        if not ready:
            return None
        self._turn += 1
        first = Lane.BULK if self._turn % BULK_TURN == 0 else Lane.INTERACTIVE
        chosen = max(ready, key=lambda task: (task.lease.hop.lane == first, task.depth))
        chosen = self._filling(chosen, ready) or await self._feeding(chosen)
        if chosen.lease.spoiled:  # while we asked: somebody cancelled its job
            return await self.pick()
        self._waiting.remove(chosen)
        return chosen

    def spills(self, task: Task) -> bool:
        """Whether a task of ours is for others to do: one like it waits here already, and somebody waits for it."""
        return self._like(task) > 0 and self._handoff.spill(task.hop)

    def companions(self, task: Task, stage: InferStage) -> list[Task]:
        """Take the other parts that wait for the same stage and fit into its batch, from any segment and job."""
        rows = _rows(part_of(task))
        found = []
        for other in self._waiting:
            apart = other.lease is not task.lease and (other.lease.suspect or task.lease.suspect)
            if other.part is None or apart or not other.alike(task):
                continue
            if rows + _rows(other.part) <= task.line.most_rows(stage):
                rows += _rows(other.part)
                found.append(other)
        self._waiting = [other for other in self._waiting if other not in found]
        return found

    def _ready(self) -> list[Task]:
        """Tasks that may run now: all, but while there is a suspect it begins after, and ends before, any other."""
        if not any(lease.suspect for lease in self._hand.leases):
            return self._waiting
        begun = {lease for lease in self._hand.leases if lease.begun}
        if begun:
            return [task for task in self._waiting if task.lease in begun]
        suspects = [task for task in self._waiting if task.lease.suspect]
        return suspects or self._waiting

    def _filling(self, chosen: Task, ready: Sequence[Task]) -> Task | None:
        """A segment with a part that is decoded already and fits into the batch that would run now; None: no such."""
        stage = chosen.line.stage(chosen.stage)
        if not isinstance(stage, InferStage):
            return None
        rows = sum(_rows(part_of(task)) for task in self._waiting if task.alike(chosen))
        if rows >= chosen.line.most_rows(stage):
            return None
        ahead = (task for task in ready if task.line is chosen.line and isinstance(task.parts, Ahead))
        return next((task for task in ahead if isinstance(task.parts, Ahead) and task.parts.ready), None)

    async def _feeding(self, chosen: Task) -> Task:
        """`chosen`; or, while others wait idle for what queues in front of its stage, what makes more of that."""
        before = [task for task in self._waiting if task.lease is chosen.lease and task.depth < chosen.depth]
        if before and self._like(chosen) == 1 and await self._handoff.hungry(chosen.hop):
            return max(before, key=lambda task: task.depth)
        return chosen

    def _like(self, task: Task) -> int:
        """How many tasks like this one wait here."""
        return sum(other.alike(task) for other in self._waiting)


def part_of(task: Task) -> Part:
    """The part of a task that has one."""
    assert task.part is not None, "only a decode has no part yet"
    return task.part


def _rows(part: Part) -> int:
    return max(1, len(part.meta.pts))
