"""Runs the stages that mostly wait for I/O, `split` and `collect`: several messages at a time."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Protocol

from pipelines.delivery import Delivery
from schemas.pipeline import PipelineSpec
from schemas.results import Failure
from schemas.subjects import SPLIT
from workers.failures import Failures, place_of_job
from workers.in_flight import InFlight, Queue
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Meter
from workers.tracing import Traces


class MessageHandler(Protocol):
    """Handles the messages of one such stage."""

    async def run(self, message: InFlight) -> None:
        """Process a message; sets `message.job` as soon as it is known."""
        ...

    async def on_failure(self, message: InFlight, failure: Failure) -> None:
        """Called after the failure of a message's job is published."""
        ...


class IoStages:
    """Runs the messages of these stages. An error fails the entire job of its message."""

    def __init__(
        self,
        intake: Intake,
        in_flight: MessagesInFlight,
        failures: Failures,
        on_end: Callable[[InFlight], None],
        meter: Meter,
        on_failed: Callable[[str, str, Exception], None],
        traces: Traces,
    ) -> None:
        self._intake = intake
        self._in_flight = in_flight
        self._failures = failures
        self._on_end = on_end
        self._meter = meter
        self._traces = traces
        self._on_failed = on_failed  # called for each message that failed for good

    async def host(self, spec: PipelineSpec, stage: str, work: MessageHandler, limit: int) -> None:
        """Take messages of a stage, up to `limit` at a time."""
        await self._intake.io.host(spec, stage, functools.partial(self._run, work), limit)

    async def _run(self, work: MessageHandler, queue: Queue, delivery: Delivery) -> None:
        message = InFlight(delivery, queue, self._on_end)
        self._in_flight.take_io(message)
        self._meter.received(queue.pipeline, queue.stage, message.nbytes, delivery.deliveries)
        self._meter.task(queue.pipeline, queue.stage)
        start_ns = time.time_ns()
        try:
            await work.run(message)
            self._traces.waited(message)
            if queue.stage != SPLIT:  # which has a span where it publishes
                self._traces.io_step(message, start_ns)
            await message.ack()
        except asyncio.CancelledError:
            await asyncio.shield(message.hand_back())
            raise
        except Exception as error:
            on_failure = functools.partial(work.on_failure, message)
            if await self._failures.settle(message, error, place_of_job, on_failure):
                self._on_failed(queue.pipeline, queue.stage, error)
