"""The runner: credit -> fetch -> process -> hand over -> settle. One process, one computing thread, many pipelines.

The event loop talks to the broker while the computing thread computes. What it computes next is chosen in `batching`,
leases are kept by `heartbeats`, and what fails goes to `failures`.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from engines.device import Ahead, Device
from engines.part import Part, decode_part, encode_part
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.jobs import Cancelled
from pipelines.pull import Delivery
from schemas.errors import Disposition, RigflowError
from schemas.messages import PartMark, PartMessage, Segment, decode
from schemas.pipeline import InferStage
from schemas.settings import Settings
from schemas.subjects import HEADER_MARK, HEADER_TYPE
from workers.batching import Step, Task, Tasks, part_of
from workers.failures import Failures, place_of
from workers.handoff import Handoff
from workers.heartbeats import Heartbeats
from workers.intake import Hand, Intake
from workers.lease import Hop, Lease
from workers.outbox import Outbox
from workers.stages import Line
from workers.telemetry import Meter

P = ParamSpec("P")
T = TypeVar("T")
LineOf = Callable[[str], Awaitable[Line]]
RETRY_S = 0.5  # pause before the second attempt, twice that before the third ...


class Runner:
    """Runs every pipeline's hosted stages from their hops; `serve` until `stop`."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        line_of: LineOf,
        attempts: Attempts,
        failures: Failures,
        device: Device,
    ) -> None:
        self._device = device
        self._broker = broker
        self._line_of = line_of
        self._attempts = attempts
        self._failures = failures
        self._wake = asyncio.Event()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._outbox = Outbox(broker, self._stored)
        self._drained = asyncio.Event()
        self._stopping = False
        self._fatal: Exception | None = None  # raised when all that it hit is noted
        self.on_suspect: Callable[[], None] = lambda: None  # called before work on one begins
        self.step: Step | None = None
        self.meter = Meter()
        self.cancelled = Cancelled(broker)
        self.hand = Hand()
        self.intake = Intake(broker, settings, self.hand, self.accept, device.abreast)
        self.handoff = Handoff(broker, self.intake, settings.lead_s)
        self.heartbeats = Heartbeats(settings, self.hand, self.intake, self._rests)
        self._tasks = Tasks(self.hand, self.handoff)
        self.counts = {"segments": 0, "frames": 0, "lost": 0, "results": 0, "failures": 0, "retries": 0}

    async def serve(self) -> None:
        """Compute until `stop` and until all that was taken is settled. Raises what is fatal to the process."""
        beats = asyncio.create_task(self.heartbeats.run())
        try:
            while not (self._stopping and not self.hand.leases):
                self._wake.clear()
                task = await self._tasks.pick()
                if task is None:
                    await self._wake.wait()
                else:
                    await self._advance(task)
                if self._fatal is not None:
                    raise self._fatal
                await self._outbox.room()
        finally:
            beats.cancel()
            await self._outbox.empty()
            for lease in list(self.hand.leases):
                await lease.release()
            self._compute.submit(self._device.leave)
            self._compute.shutdown(wait=False)

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, finish what is in hand within `grace_s`, hand back the rest."""
        await self.intake.close()
        self._stopping = True
        self._wake.set()
        if self.hand.leases:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._drained.wait()
        for lease in list(self.hand.leases):
            await lease.release()
            self._forget(lease)

    async def accept(self, hop: Hop, delivery: Delivery) -> None:
        """Take a message of a hop in; its lease is ours from now on."""
        lease = Lease(delivery, hop, delivery.nbytes)
        if not self.hand.leases:
            self.heartbeats.begin()
        self.hand.take(lease)
        self.meter.received(hop.pipeline, hop.stage, lease.nbytes, delivery.deliveries)
        try:
            message, buffers = decode(await delivery.load())
            if not isinstance(message, Segment | PartMessage):
                raise RigflowError(f"a {message.type} has no business in front of {hop.stage}")
            lease.job = message.key.job
            if self.cancelled.has(lease.job):
                await self._drop_cancelled(lease)
                return
            await self._failures.look_up(lease)
            line = await self._line_of(lease.job.revision)
            line.stage(hop.stage)
            if isinstance(message, Segment):
                task = Task(lease, line, hop.stage, parts=line.decode(message, buffers))
            else:
                task = Task(lease, line, hop.stage, part=decode_part(message, buffers))
        except (RigflowError, ValueError, KeyError) as error:
            await self._reject_unread(lease, error)
            return
        if isinstance(task.parts, Ahead) and not any(lease.suspect for lease in self.hand.leases):
            await self._begin([lease])
            task.parts.begin()
        self._tasks.add(task)
        self._wake.set()
        self.intake.refill()

    async def follow_cancelled(self) -> None:
        """Drop the work of jobs that are cancelled, what is in hand and what comes, for ever."""
        async for _ in self.cancelled.follow():
            for lease in list(self.hand.leases):
                if lease.job is not None and self.cancelled.has(lease.job):
                    await self._drop_cancelled(lease)

    async def _drop_cancelled(self, lease: Lease) -> None:
        await lease.terminate("its job was cancelled")
        self.hand.leases.discard(lease)
        self._attempts.end(lease.delivery)
        self._settle_down()

    # computing

    async def _advance(self, task: Task) -> None:
        """Run one step of a task and hand over what it gives; what fails, fails for the tasks of this step alone."""
        together = [task]
        try:
            if task.parts is not None:
                await self._decode(task, task.parts)
                return
            stage = task.line.stage(task.stage)
            if isinstance(stage, InferStage):
                together += self._tasks.companions(task, stage)
                await self._infer(together, stage)
            elif stage.kind == "preprocess":
                self._hand_over(task, await self._on_device([task], task.line.preprocess, part_of(task)))
            else:
                await self._encode(task)
        except Exception as error:
            for failed in together:
                await self._failed(failed, error)

    async def _decode(self, task: Task, parts: Iterator[Part]) -> None:
        part = await self._on_device([task], next, parts, None)
        if task.lease.settled:
            return  # it was cancelled, or handed back, meanwhile
        if part is None:
            self.counts["segments"] += 1
            await self._drop(task.lease)
            return
        self.counts["frames"] += part.meta.frames
        self.counts["lost"] += part.meta.lost
        self._tasks.add(task)
        task.lease.hold()
        self._hand_over(task, part)

    async def _infer(self, together: list[Task], stage: InferStage) -> None:
        parts = [part_of(task) for task in together]
        outcomes = await self._on_device(together, together[0].line.infer, stage, parts)
        for task, outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, RigflowError):
                await self._failed(task, outcome)
            else:
                self._hand_over(task, outcome)

    async def _encode(self, task: Task) -> None:
        part = part_of(task)
        body = await self._on_device([task], task.line.encode, part)
        if task.lease.settled:
            return
        self.counts["results"] += 1
        key = part.meta.key
        self.meter.part(key.job.pipeline, task.stage, part.meta.frames)
        self.meter.sent(key.job.pipeline, task.stage, len(body))
        headers = {HEADER_TYPE: "part", HEADER_MARK: PartMark.of(part.meta).header()}
        self._outbox.send(task.lease, self._broker.names.results(key.job), body, key.message_id("result"), headers)

    async def _on_device(self, tasks: list[Task], step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step on the computing thread."""
        await self._begin(task.lease for task in tasks)
        self.hand.computing([task.lease for task in tasks])
        self.intake.refill()
        self.step = now = Step(tasks[0].line.spec.name, tasks[0].stage, time.monotonic())
        try:
            call = functools.partial(step, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._compute, call)
        finally:
            self.hand.computing(())
            self.step = None
            self.meter.step(now.pipeline, now.stage, took_s := time.monotonic() - now.began_s)
            self.handoff.took(now.pipeline, now.stage, took_s)
            self.heartbeats.move()

    async def _begin(self, leases: Iterable[Lease]) -> None:
        """Say so before work on an input begins: it may be the last that is heard of us."""
        for lease in leases:
            if not lease.begun:
                lease.begun = True
                await self._attempts.begin(lease.delivery, lease.suspect)
                if lease.suspect:
                    self.on_suspect()

    # handing over and settling

    def _hand_over(self, task: Task, part: Part) -> None:
        """Local first: the next stage in this process; its hop, when it is not here or others wait idle for it."""
        if task.lease.settled:
            return
        following = task.line.after(task.stage)
        assert following is not None
        self.meter.part(task.line.spec.name, task.stage, part.meta.frames)
        handed = Task(task.lease, task.line, following, part=part)
        if following in task.line.hosted and not self._tasks.spills(handed):
            self._tasks.add(handed)
            self._wake.set()
            return
        key = part.meta.key
        subject = self._broker.names.work(key.job.pipeline, following, key.job.lane)
        body = encode_part(part)
        self.meter.sent(key.job.pipeline, task.stage, len(body))
        self._outbox.send(task.lease, subject, body, key.message_id(following), {})

    async def _stored(self, lease: Lease) -> None:
        self.heartbeats.move()
        await self._drop(lease)

    async def _drop(self, lease: Lease) -> None:
        if await lease.drop():
            self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        self.hand.finish(lease)
        self._attempts.end(lease.delivery)
        self._settle_down()

    def _rests(self) -> bool:
        return not self.hand.leases or (self._outbox.busy and self.step is None)

    def _settle_down(self) -> None:
        """A lease is gone: there may be room for more, or nothing left to wait for."""
        if not self.hand.leases:
            self._drained.set()
        self._wake.set()
        self.intake.refill()

    async def _failed(self, task: Task, error: Exception) -> None:
        """One piece failed: retry its input, or publish the failure and go on without it (law 5)."""
        lease, part = task.lease, task.part
        fatal = isinstance(error, RigflowError) and error.disposition is Disposition.FATAL
        if await self._failures.again(lease, error, RETRY_S):
            self.counts["retries"] += 1
        elif not lease.settled:
            self.counts["failures"] += 1
            self.meter.failed(task.line.spec.name, task.stage)
            if part is not None and not fatal:
                await self._failures.bury(lease, error, task.stage, part.meta.key, False, part.meta.span_s)
            else:
                message, _ = decode(await lease.delivery.load())
                await self._failures.bury(lease, error, task.stage, *place_of(message))
        if fatal:  # there is no going on with the rest of it here
            self._fatal = error
            await (lease.release() if lease.spoiled else lease.terminate(str(error)))
            self._forget(lease)
        else:
            await self._drop(lease)

    async def _reject_unread(self, lease: Lease, error: Exception) -> None:
        """A message that cannot become a task: its pipeline or model is not to be had, or it is no message of ours."""
        if isinstance(error, RigflowError) and await self._failures.again(lease, error, 2 * RETRY_S):
            await self._drop(lease)
            return
        self.counts["failures"] += 1
        self.meter.failed(lease.hop.pipeline, lease.hop.stage)
        try:
            message, _ = decode(await lease.delivery.load())
            await self._failures.bury(lease, error, lease.hop.stage, *place_of(message))
            await self._drop(lease)
        except (RigflowError, ValueError):  # there is no job to tell
            await lease.terminate(str(error))
            self._forget(lease)
