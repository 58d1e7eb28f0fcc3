"""One message in flight: the queue it came from, its tasks, and how it ends.

Only this module settles deliveries. A message ends once, in one of the states `ENDS`:

    taken -> begun -> acked          everything made of it is stored
                   -> retried        an attempt failed, another one follows after a pause
          -> dead-lettered           it failed for good; its failure and its dead letter are stored
          -> cancelled               its job was cancelled
          -> handed back             this worker stops, or cannot continue, or may not
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from engines.part import Part
from engines.ports import RowKind
from engines.prefetched import PrefetchedParts, prefetched
from pipelines.delivery import Delivery
from schemas.jobs import JobRef, Priority
from schemas.pipeline import OperatorStage
from schemas.results import Attempt
from schemas.subjects import HEADER_COPY, SPLIT
from workers.stages import LoadedPipeline
from workers.telemetry import Event, log_event


class State(Enum):
    """The state of a message."""

    TAKEN = "taken"
    BEGUN = "begun"
    ACKED = "acked"
    RETRIED = "retried"
    DEAD_LETTERED = "dead-lettered"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed back"


ENDS = frozenset(State) - {State.TAKEN, State.BEGUN}


class Queue(NamedTuple):
    """A queue that a worker takes from: the stage, the priority, and the tenant if it is a listed one."""

    pipeline: str
    stage: str
    priority: Priority
    tenant: str = ""


@dataclass(slots=True, eq=False)
class Task:
    """One step for the computing thread: decode the next part of a segment, or run a part through the next stage.

    `prefetch` is the decoding, on devices that decode in advance. `prepared`: its operator has made what it makes of a
    part in advance. `computed_s`: what its steps took since it last gave a part. `trace` is the place of its last step,
    as `traceparent`; work that goes on began at `begun_ns`.
    """

    message: "InFlight"
    pipeline: LoadedPipeline
    stage: str
    part: Part | None = None
    parts: Iterator[Part] | None = None
    since_s: float = 0.0  # of the monotonic clock: when it began to wait
    computed_s: float = 0.0
    trace: str = ""
    begun_ns: int = 0
    prepared: bool = False
    prefetch: PrefetchedParts | None = field(init=False)
    nbytes: int = field(init=False)  # of its part
    _rows: Mapping[RowKind, int] | None = None

    def __post_init__(self) -> None:
        self.nbytes = 0 if self.part is None else self.part.nbytes
        self.prefetch = prefetched(self.parts)

    @property
    def pending(self) -> bool:
        """Whether its next part is being decoded, after which the computing thread is woken."""
        return self.prefetch is not None and self.prefetch.pending

    @property
    def beside(self) -> bool:
        """Whether its next step is for `workers.beside`, and not for the computing thread."""
        if not self.pipeline.works_beside:
            return False
        if self.parts is None:
            return self.pipeline.beside(self.stage, self.prepared)
        return self.prefetch is not None and self.pipeline.feeds_beside(self.stage)

    @property
    def weight(self) -> int:
        """Its share of a step with others: the rows that it adds to a model's batch, at least 1."""
        stage = self.pipeline.stage(self.stage)
        in_batches = self.part is not None and isinstance(stage, OperatorStage) and stage.batches
        return max(1, sum(self.rows.values())) if in_batches else 1

    def charged(self, part: Part, cards: Sequence[str]) -> Part:
        """A part that it gives, with the seconds that computing it took, and the marks of the cards that did."""
        computed_s, self.computed_s = part.meta.computed_s + self.computed_s, 0.0
        return part.with_arrays(part.arrays, computed_s=computed_s, cards=tuple(cards))

    @property
    def depth(self) -> int:
        """Position of its stage in the pipeline."""
        return self.pipeline.depth[self.stage]

    @property
    def queue(self) -> Queue:
        """The queue in front of its stage."""
        return self.message.queue._replace(pipeline=self.pipeline.spec.name, stage=self.stage)

    @property
    def rows(self) -> Mapping[RowKind, int]:
        """Rows of its part that wait for a batch of its stage, which runs a model."""
        if self._rows is None:
            stage = self.pipeline.stage(self.stage)
            assert isinstance(stage, OperatorStage), "only operators have batches"
            assert self.part is not None, "only a decode has no part yet"
            self._rows = self.pipeline.waiting_rows(stage, self.part)
        return self._rows

    def alike(self, other: "Task") -> bool:
        """Whether another task is for the same stage of the same pipeline."""
        return self.stage == other.stage and self.pipeline is other.pipeline


class InFlight:
    """A message from the moment it is delivered until it is settled, with the tasks that derive from it.

    A task waits, then is active (computed, or published), then it is finished; the message is acked after its last
    one (law 1). `mark_for_retry` and every end drop the waiting tasks, so that none is left behind. `attempts` are
    earlier ones that did not finish it, `attempt` is this worker's, once it has begun. `expected_s` and `spent_s`
    are seconds of computing, for the credit of the intake. `on_end` is called once, when it has ended.
    """

    def __init__(self, delivery: Delivery, queue: Queue, on_end: Callable[["InFlight"], None]) -> None:
        self.delivery = delivery
        self.queue = queue
        self.state = State.TAKEN
        self.nbytes = delivery.nbytes
        self.job: JobRef | None = None  # set when the body is read
        self.attempts: tuple[Attempt, ...] = ()
        self.attempt: Attempt | None = None
        self.expected_s = 0.0
        self.spent_s = 0.0
        self.taken_s = time.monotonic()
        self.waiting: list[Task] = []
        self._active: set[Task] = set()
        self._retry_delay_s: float | None = None
        self._on_end = on_end
        self.paused = False
        self.copied = False  # a copy of it is in its queue, for a faster worker

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy of a message that another worker has, too."""
        return HEADER_COPY in self.delivery.headers and self.queue.stage != SPLIT  # whose headers anybody may make up

    @property
    def ended(self) -> bool:
        """Whether it is settled."""
        return self.state in ENDS

    @property
    def useless(self) -> bool:
        """Whether more work on it has no effect: it is settled, or will be delivered again."""
        return self.ended or self._retry_delay_s is not None

    @property
    def unread(self) -> bool:
        """Whether it is being read: it has no task yet."""
        return self.state is State.TAKEN and not self.waiting and not self._active

    @property
    def decoded(self) -> bool:
        """Whether it keeps no decoder busy any more: it has tasks (none while it is prepared), all of later stages."""
        of_parts = [task.parts is None for task in (*self.waiting, *self._active)]
        return self.state is not State.TAKEN and bool(of_parts) and all(of_parts)

    @property
    def begun(self) -> bool:
        """Whether work on it has begun and is not over, and may crash this process now."""
        return (self.state is State.BEGUN or (self.state is State.TAKEN and bool(self._active))) and not self.paused

    @property
    def poison_candidate(self) -> bool:
        """Whether an earlier attempt did not finish it: the message may have crashed that worker."""
        return bool(self.attempts)

    def pause(self, paused: bool) -> None:
        """Note whether work on it waits for the work of others."""
        self.paused = paused

    def add(self, task: Task) -> None:
        """Add a task that can run, or one that was active and waits again. Ignored when the message is `useless`."""
        self._active.discard(task)
        if not self.useless:
            task.since_s = time.monotonic()
            self.waiting.append(task)

    def put_back(self, task: Task, part: Part) -> None:
        """An active task waits again, as long as before: some rows of its part wait for a fuller batch."""
        self._active.discard(task)
        if not self.useless:
            task.part, task.nbytes, task._rows = part, part.nbytes, None
            self.waiting.append(task)

    def start(self, task: Task) -> None:
        """A waiting task becomes active: it is computed now."""
        self.waiting.remove(task)
        self._active.add(task)

    def hold(self, task: Task) -> None:
        """A task stays active: its output is being published."""
        self._active.add(task)

    async def finish(self, task: Task) -> None:
        """A task is finished: its output, or its failure, is stored. The last task settles the message."""
        if task not in self._active:
            return
        self._active.discard(task)
        await self._settle_if_over()

    async def _settle_if_over(self) -> None:
        if self._active or self.waiting or self.ended:
            return
        if self._retry_delay_s is None:
            await self._end(State.ACKED, self.delivery.ack())
        else:
            await self._end(State.RETRIED, self.delivery.retry(self._retry_delay_s))

    def begin(self, attempt: Attempt) -> None:
        """Work on it begins."""
        if self.state is State.TAKEN:
            self.state, self.attempt = State.BEGUN, attempt

    async def ack(self) -> None:
        """Acknowledge it: everything made of it is stored."""
        self.waiting.clear()
        await self._settle_if_over()

    async def mark_for_retry(self, delay_s: float) -> None:
        """Have it delivered again, `delay_s` after its active tasks are finished."""
        if self.useless:
            return
        self._retry_delay_s = delay_s
        self.waiting.clear()
        await self._settle_if_over()

    async def dead_letter(self, reason: str) -> None:
        """End it as failed for good; its failure and its dead letter are stored."""
        if not self.ended:
            await self._end(State.DEAD_LETTERED, self.delivery.terminate(reason))

    async def cancel(self, reason: str = "its job was cancelled") -> None:
        """End it because its job was cancelled: it is not delivered again."""
        if not self.ended:
            await self._end(State.CANCELLED, self.delivery.terminate(reason))

    async def drop_copy(self) -> None:
        """End a copy that failed: what becomes of the first message counts, and its failure is published once."""
        await self.cancel("a copy failed; the first message counts")

    async def replace(self) -> None:
        """End it: the same input is in its queue once more."""
        if not self.ended:
            await self._end(State.HANDED_BACK, self.delivery.ack())

    async def hand_back(self) -> None:
        """Have it delivered to another worker at once; after its pause if it is marked for a retry."""
        if not self.ended and self._retry_delay_s is not None:
            await self._end(State.RETRIED, self.delivery.retry(self._retry_delay_s))
        elif not self.ended:
            await self._end(State.HANDED_BACK, self.delivery.release())

    async def _end(self, state: State, settling: Coroutine[Any, Any, None]) -> None:
        """Settle the message. If the broker does not receive this, it delivers the message again after `ack_wait_s`."""
        self.state = state
        self.waiting.clear()
        self._active.clear()
        self._on_end(self)
        try:
            await (asyncio.shield(settling) if self.delivery.has_blob else settling)  # which waits for nothing
        except Exception as error:
            text = f"{self.delivery.subject} {self.delivery.stream_seq} could not be {state.value}: {error}"
            log_event(Event("unsettled", text, logging.WARNING))


def charge(tasks: Sequence[Task], seconds: float) -> None:
    """Share the seconds of a step among its tasks, by their weight."""
    weights = [task.weight for task in tasks]
    for task, weight in zip(tasks, weights, strict=True):
        task.computed_s += seconds * weight / sum(weights)
