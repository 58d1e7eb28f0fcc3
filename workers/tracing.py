"""Spans of the work in a worker: how long a message waited, and each step of a stage.

A step with the parts of several messages is a span in the trace of each of their jobs; these spans are linked.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from pipelines.tracing import Context, Span, Tracer, context_of_job, facts_of
from schemas.subjects import HEADER_ID, HEADER_TRACE
from workers.in_flight import InFlight, Task

LINKS = 16  # of a span, at most
_OFF = nullcontext()


def onward(task: Task) -> dict[str, str]:
    """The header of a message that a task sends: the place of its last step, or that of the message it came from."""
    place = task.trace or task.message.delivery.headers.get(HEADER_TRACE, "")
    return {HEADER_TRACE: place} if place else {}


class Traces:
    """Records the spans of one worker; does nothing without a tracer."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    @property
    def on(self) -> bool:
        """Whether there is a tracer."""
        return self._tracer is not None

    def waited(self, message: InFlight) -> None:
        """The message's job is known: record how long it waited in its queue."""
        if self._tracer is None or message.job is None:
            return
        above, queue = _above(message), message.queue
        delivery = message.delivery
        context = above.child(delivery.headers.get(HEADER_ID, ""), "queue", delivery.deliveries)
        facts = facts_of(message.job) | {
            "rigflow.stage": queue.stage,
            "rigflow.priority": queue.priority.value,
            "rigflow.deliveries": delivery.deliveries,
            "rigflow.bytes": message.nbytes,
        }
        start_ns, end_ns = delivery.stored_ns, time.time_ns() - int((time.monotonic() - message.taken_s) * 1e9)
        self._tracer.record(Span(f"queue {queue.stage}", context, above.span, start_ns, end_ns, facts))

    def step(self, tasks: Sequence[Task]) -> AbstractContextManager[None]:
        """Record a step of these tasks around a block; of work that goes on, only note when it began."""
        if self._tracer is None:
            return _OFF
        if tasks[0].pipeline.continuous(tasks[0].stage):
            for task in tasks:
                task.begun_ns = task.begun_ns or time.time_ns()
            return _OFF
        return self._step(self._tracer, tasks)

    def ended(self, task: Task, error: str = "") -> None:
        """Work that goes on is done: record it as one span."""
        if self._tracer is not None and task.begun_ns:
            self._record(self._tracer, [task], task.begun_ns, error)

    def io_step(self, message: InFlight, start_ns: int, error: str = "") -> None:
        """Record a step of a stage that has no tasks."""
        if self._tracer is None or message.job is None:
            return
        above, stage = _above(message), message.queue.stage
        context = above.child(message.delivery.headers.get(HEADER_ID, ""), stage, start_ns)
        facts = facts_of(message.job) | {"rigflow.stage": stage}
        self._tracer.record(Span(stage, context, above.span, start_ns, time.time_ns(), facts, error=error))

    @contextmanager
    def _step(self, tracer: Tracer, tasks: Sequence[Task]) -> Iterator[None]:
        start_ns, error = time.time_ns(), ""
        try:
            yield
        except Exception as failure:
            error = str(failure) or type(failure).__name__
            raise
        finally:
            self._record(tracer, tasks, start_ns, error)

    def _record(self, tracer: Tracer, tasks: Sequence[Task], start_ns: int, error: str) -> None:
        """A span for each message of the tasks, linked with those of the others."""
        end_ns, stage = time.time_ns(), tasks[0].stage
        by_message: dict[InFlight, list[Task]] = {}
        for task in tasks:
            by_message.setdefault(task.message, []).append(task)
        places = {message: _above(message).child(_id(message), stage, start_ns) for message in by_message}
        for message, own in by_message.items():
            if message.job is None:
                continue
            place = places[message]
            others = [each for other, each in places.items() if other is not message]
            facts = facts_of(message.job) | {
                "rigflow.stage": stage,
                "rigflow.parts": sum(task.part is not None for task in own),
                "rigflow.batch_messages": len(places),
                "rigflow.batch_rows": sum(task.weight for task in tasks),
            }
            above = _above(message).span
            tracer.record(Span(stage, place, above, start_ns, end_ns, facts, others[:LINKS], error))
            for task in own:
                task.trace = place.header


def _above(message: InFlight) -> Context:
    """The place that a message came with, or that of its job."""
    assert message.job is not None, "a message without a job has no trace"
    return Context.parse(message.delivery.headers.get(HEADER_TRACE, "")) or context_of_job(message.job)


def _id(message: InFlight) -> str:
    return f"{message.delivery.headers.get(HEADER_ID, '')}/{message.delivery.deliveries}"
