"""The runner: credit -> fetch -> process -> hand over -> settle. One process, one computing thread, many pipelines.

The event loop talks to the broker while the computing thread computes. What it computes next is chosen in `batching`,
`heartbeats` renews leases, `failures` handles errors, and only `in_flight` settles messages.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

from engines.part import Part, encode_part
from pipelines.broker import Broker
from pipelines.cancelled import Cancelled
from pipelines.delivery import Delivery
from schemas.errors import Disposition, RigflowError, error_code
from schemas.pipeline import EncodeStage, OperatorStage
from schemas.settings import Settings
from workers import decoded
from workers.batching import Batching
from workers.beside import Beside
from workers.computing import ComputingThread, P, Step, T
from workers.continuous_steps import ContinuousSteps
from workers.costs import ModelCosts
from workers.encoding import Encoding
from workers.failures import RETRY_S, Failures, place_in_body, place_of
from workers.first_task import first_task, read_content
from workers.handoff import Handoff
from workers.heartbeats import Heartbeats
from workers.in_flight import InFlight, Queue, State, Task
from workers.intake import Intake
from workers.io_stages import IoStages
from workers.measured import Measured
from workers.messages_in_flight import MessagesInFlight
from workers.outbox import Outbox
from workers.outcomes import operate
from workers.recent import Recent
from workers.stages import LoadedPipeline
from workers.telemetry import Meter
from workers.tracing import Traces
from workers.trust import Trust

LoadPipeline = Callable[[str], Awaitable[LoadedPipeline]]


class Runner:
    """Runs every pipeline's hosted stages from their queues; `serve` until `stop`."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        load_pipeline: LoadPipeline,
        failures: Failures,
        computing: ComputingThread,
        concurrency: int,
        trust: Trust,
    ) -> None:
        self._broker, self._load_pipeline, self._failures, self.trust = broker, load_pipeline, failures, trust
        self._wake, self._drained = asyncio.Event(), asyncio.Event()
        self._outbox = Outbox(broker, self.failed)
        self._stopping = False
        self._fatal: Exception | None = None  # `serve` raises it after every task of the step has its failure
        self._preparing: set[asyncio.Task[None]] = set()
        self.on_poison_candidate: Callable[[], None] = lambda: None  # called before work on a poison candidate begins
        self.computing, self.meter, self.costs, self.traces = computing, Meter(), ModelCosts(), Traces(broker.tracer)
        self.cancelled, self.in_flight, self.recent = Cancelled(broker), MessagesInFlight(), Recent(broker, trust)
        self.intake = Intake(broker, settings, self.in_flight, self.accept, concurrency)
        on_failed, traces = self._count_failure, self.traces
        self.io_stages = IoStages(self.intake, self.in_flight, failures, self._ended, self.meter, on_failed, traces)
        self.handoff = Handoff(broker, self.intake, settings.prefetch_s)
        busy = decoded.busy(lambda: self.step, self.in_flight)
        self.heartbeats = Heartbeats(settings, self.in_flight, self.intake, busy)
        self.measured = Measured(self.heartbeats, self.traces, self.meter, self.handoff)
        self._continuous = ContinuousSteps(broker, self, self.woken)
        self._batching = Batching(self.in_flight, self.intake, self.handoff, self.meter)
        self._encoding = Encoding(self, self._outbox, self.woken, self._batching.stays)
        self._beside = Beside(self, self._batching)
        self.counts = {"segments": 0, "frames": 0, "lost": 0, "results": 0, "failures": 0, "retries": 0}

    @property
    def step(self) -> Step | None:
        """The step that runs now: on the computing thread, or else one apart."""
        return self.computing.step or self._encoding.apart.step or self._beside.step

    def woken(self) -> None:
        """Tasks came or ended: look for what can run now."""
        self._wake.set()
        self._beside.look()

    async def serve(self) -> None:
        """Compute until `stop` was called and all messages are settled. Raises errors that are fatal to the process."""
        helpers = [asyncio.create_task(each.run()) for each in (self.heartbeats, self._beside)]
        try:
            while not (self._stopping and not self.in_flight.messages):
                self._wake.clear()
                task = await self._batching.pick()
                await (self._wait() if task is None else self._advance(task))
                self._continuous.advanced()
                if self._fatal is not None:
                    raise self._fatal
                await self._outbox.wait_for_space()
        finally:
            for helper in (*helpers, *self._preparing):
                helper.cancel()
            await self._continuous.close()
            await self._encoding.close()
            await self._beside.close()
            await self._outbox.close()
            await self.in_flight.hand_back_all()

    async def stop(self, grace_s: float) -> None:
        """Fetch no more messages, finish those in flight within `grace_s`, and hand back the rest."""
        self._stopping = self._batching.hurry = True
        await self.intake.close()
        self.woken()
        if self.in_flight.messages:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._drained.wait()
        await self.in_flight.hand_back_all()

    async def _wait(self) -> None:
        """Wait until a task comes, or until a batch that waits for others is due."""
        due_in_s = self._batching.due_in_s()
        if due_in_s is not None and not self.in_flight.continuing.busy:  # more parts for the batch may be at the broker
            self.in_flight.idle = True
            self.intake.refill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due_in_s):
                await self._wake.wait()
        self.in_flight.idle = False

    async def accept(self, queue: Queue, delivery: Delivery) -> None:
        """Take a message and prepare it in a new asyncio task: the next message does not wait for it."""
        message = InFlight(delivery, queue, self._ended)
        self.in_flight.take(message)
        self.meter.received(queue.pipeline, queue.stage, message.nbytes, delivery.deliveries)
        self.intake.refill_soon()  # before it is prepared: what both send is written together
        preparing = asyncio.create_task(self._prepare(message))
        self._preparing.add(preparing)
        preparing.add_done_callback(self._preparing.discard)

    async def _prepare(self, message: InFlight) -> None:
        """Make the first task of a message."""
        try:
            task = await self._first_task(message)
            if task is None or message.ended:
                return
            if task.prefetch is not None and not self.in_flight.poison_candidates:
                await self.begin([message])
                task.prefetch.begin(decoded.waker(self._beside.wake if task.beside else self._wake))
        except Exception as error:
            await self._reject(message, error)
            return
        self.meter.task(message.queue.pipeline, message.queue.stage)
        self._beside.needed |= task.pipeline.works_beside
        message.add(task)
        self.woken()

    async def _first_task(self, message: InFlight) -> Task | None:
        """The first task of a message; None when its job was cancelled.

        Raises RigflowError when the message or its pipeline cannot be used.
        """
        content, buffers = await read_content(message, self._broker.names)
        if self.cancelled.has(content.key.job):
            await message.cancel()
            return None
        self.traces.waited(message)
        await self._failures.look_up(message)
        pipeline = await self._load_pipeline(content.key.job.revision)
        return first_task(message, content, buffers, pipeline, self.heartbeats.tick)

    def _ended(self, message: InFlight) -> None:
        """A message is settled: fetch more, and wake `stop` when no message is left."""
        self.recent.add(message)
        self.in_flight.drop(message)
        if not self.in_flight.messages:
            self._drained.set()
        self.woken()
        self.intake.refill_soon()

    async def _advance(self, task: Task) -> None:
        """Run one step of a task and hand over its output. An error fails only the tasks of this step."""
        stage = task.pipeline.stage(task.stage)
        together = [task]
        if isinstance(stage, OperatorStage) and task.pipeline.continuous(stage.name):
            await self._continuous.begin(task, stage)
            return
        if task.pipeline.encodes_apart(stage):
            await self._encoding.begin(task)
            return
        if isinstance(stage, OperatorStage) and stage.batches:
            together += self._batching.companions(task, stage)
        if isinstance(stage, EncodeStage):
            together += self._batching.neighbours(task, self._encoding.beside(task))
        for each in together:
            each.message.start(each)
        try:
            if task.parts is not None:
                await self.decode(task)
            elif isinstance(stage, OperatorStage):
                await operate(self, together, stage, self._batching.full(together, stage), self._encoding)
            else:
                await self._encoding.encode(together)
        except Exception as error:
            for each in together:
                await self.failed(each, error)
        # not in a `finally`: if this is cancelled, the tasks stay active and their messages are handed back
        for each in together:
            await each.message.finish(each)

    async def decode(self, task: Task) -> None:
        """Take the next part of a segment. Raises decoding errors."""
        part = await decoded.next_part(task, self.on_device, self.meter)
        if part is None or task.message.ended:
            return  # the message was cancelled or handed back meanwhile
        last = part.meta.key.last  # nothing follows it: to ask for more would cost a trip to the computing thread
        for name, count in (("segments", last), ("frames", part.meta.frames), ("lost", part.meta.lost)):
            self.counts[name] += count
        await self.hand_over(task, part)
        self.intake.refill_soon() if last else task.message.add(task)

    async def on_device(self, tasks: Sequence[Task], step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step on the computing thread. The seconds that it takes are recorded."""
        return await self.compute(self.measured.step(tasks), tasks, functools.partial(step, *args, **kwargs))

    async def compute(self, measuring: AbstractContextManager[None], tasks: Sequence[Task], call: Callable[[], T]) -> T:
        """Run a call for these tasks on the computing thread, measured by a block."""
        await self.begin([task.message for task in tasks])
        self.in_flight.computing([task.message for task in tasks])
        self.intake.step_begins()
        self._beside.look()  # what this step took makes room for the next parts
        try:
            with measuring:
                return await self.computing.run_step(tasks[0].pipeline.spec.name, tasks[0].stage, call)
        finally:
            self.in_flight.computing(())

    async def begin(self, messages: Sequence[InFlight]) -> None:
        """Store that work on messages begins: one that crashes this process is a poison candidate next time."""
        for message in messages:
            if message.state is State.TAKEN:
                self._failures.begin(message)
                await self._failures.store_begun(self.in_flight, surely=message.delivery.deliveries > 1)
                if message.poison_candidate:
                    self.on_poison_candidate()

    async def hand_over(self, task: Task, part: Part) -> None:
        """Give a part to the next stage: here or by its queue, or by the collector where it takes the entire media."""
        if task.message.ended:
            return
        part, following = task.charged(part, self.trust.cards(part)), task.pipeline.after(task.stage)
        assert following is not None
        self.meter.part(task.pipeline.spec.name, task.stage, part.meta.frames)
        handed = Task(task.message, task.pipeline, following, part=part, trace=task.trace)
        if task.pipeline.gathers(following):
            self._outbox.send_result(task, part, await self.computing.run(task.pipeline.to_gather, part, following))
        elif following in task.pipeline.hosted and not self._batching.spills(handed):
            self.meter.task(task.pipeline.spec.name, following)
            task.message.add(handed)
            self.woken()
        else:
            body = await self.computing.run(encode_part, part)
            self.meter.sent(task.pipeline.spec.name, task.stage, len(body))
            self._outbox.send_on(task, part, following, body)

    async def failed(self, task: Task, error: Exception) -> None:
        """A task failed: retry its message, or publish the failure and continue with its other tasks (law 5)."""
        message, part = task.message, task.part
        if message.ended:
            return
        fatal = isinstance(error, RigflowError) and error.disposition is Disposition.FATAL
        try:
            if await self._failures.retry(message, error, RETRY_S):
                self.counts["retries"] += 1
            else:
                self._count_failure(task.pipeline.spec.name, task.stage, error)
                known = None if fatal or part is None else place_of(part.meta)
                place, mark = known or await place_in_body(message), "" if fatal else self.trust.mark
                await self._failures.publish(message, error, task.stage, place, mark)
        except Exception as second:
            await self._failures.give_back(message, second)
        if fatal:  # this process cannot compute the rest of the message
            self._fatal = error
            self.woken()
            await (message.hand_back() if message.useless else message.dead_letter(str(error)))

    async def _reject(self, message: InFlight, error: Exception) -> None:
        """Retry or fail a message that has no task: it cannot be read, or its pipeline or model cannot be loaded."""
        if not message.ended and await self._failures.settle(message, error, place_in_body):
            self._count_failure(message.queue.pipeline, message.queue.stage, error)

    def _count_failure(self, pipeline: str, stage: str, error: Exception) -> None:
        self.counts["failures"] += 1
        self.meter.failed(pipeline, stage, error_code(error))
