"""The runner: credit -> fetch -> process -> hand over -> settle. One process, one computing thread, many pipelines.

The event loop talks to the broker while the computing thread computes. Of all steps that could run, the one furthest
down its pipeline runs first, the interactive lane before the bulk lane: finished work leaves before new work begins,
so memory stays bounded without limits of its own, and a person waits for one step at most, not for a queue.
"""

import asyncio
import contextlib
import functools
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engines.part import Part, decode_part, encode_part
from pipelines.broker import Broker
from pipelines.dead import bury
from pipelines.jobs import Cancelled
from pipelines.pull import Delivery
from schemas.errors import Disposition, RigflowError
from schemas.messages import Failure, Key, Lane, PartMark, PartMessage, Segment, decode
from schemas.pipeline import InferStage
from schemas.settings import Settings
from schemas.subjects import HEADER_MARK, HEADER_TYPE
from workers.handoff import Handoff
from workers.intake import BULK_TURN, Hand, Intake
from workers.lease import Hop, Lease
from workers.stages import Line
from workers.telemetry import Event, Fact, Meter, tell

P = ParamSpec("P")
T = TypeVar("T")
LineOf = Callable[[str], Awaitable[Line]]
UNSENT_BYTES = 32 << 20  # results on their way to the broker before computing pauses: the pressure of law 4


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
    def has_part(self) -> bool:
        """Whether a device that decodes ahead has the segment's next part already."""
        return bool(getattr(self.parts, "ready", False))

    @property
    def hop(self) -> Hop:
        """The queue in front of its stage."""
        return Hop(self.line.spec.name, self.stage, self.lease.hop.lane)


@dataclass(frozen=True, slots=True)
class Step:
    """What the computing thread does now, since `began_s` of the monotonic clock."""

    pipeline: str
    stage: str
    began_s: float


class Runner:
    """Runs every pipeline's hosted stages from their hops; `serve` until `stop`."""

    def __init__(self, broker: Broker, settings: Settings, line_of: LineOf, name: str, abreast: int = 1) -> None:
        """`abreast`: segments that the device works on at a time."""
        self._broker = broker
        self._settings = settings
        self._line_of = line_of
        self._name = name
        self._tasks: list[Task] = []
        self._wake = asyncio.Event()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._sending: set[asyncio.Task[None]] = set()
        self._unsent_bytes = 0
        self._sent = asyncio.Event()
        self._drained = asyncio.Event()
        self._turn = 0
        self._moved = asyncio.Event()
        self._moved_s = time.monotonic()
        self._stopping = False
        self.step: Step | None = None
        self.meter = Meter()
        self.cancelled = Cancelled(broker)
        self.hand = Hand()
        self.intake = Intake(broker, settings, self.hand, self.accept, abreast)
        self.handoff = Handoff(broker, self.intake, settings.lead_s)
        self.counts = {"segments": 0, "frames": 0, "lost": 0, "results": 0, "failures": 0, "retries": 0}

    async def serve(self) -> None:
        """Compute until `stop` and until all that was taken is settled. Raises what is fatal to the process."""
        beats = asyncio.create_task(self._heartbeats())
        try:
            while not (self._stopping and not self.hand.leases):
                task = await self._pick()
                if task is None:
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    await self._advance(task)
                while self._unsent_bytes > UNSENT_BYTES:
                    self._sent.clear()
                    await self._sent.wait()
        finally:
            beats.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            for lease in list(self.hand.leases):
                await lease.release()
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
            self._moved_s = time.monotonic()
        self.hand.take(lease)
        self.meter.received(hop.pipeline, hop.stage, lease.nbytes, delivery.deliveries)
        try:
            message, buffers = decode(await delivery.load())
            lease.job = _key_of(message).job
            if self.cancelled.has(lease.job):
                await self._drop_cancelled(lease)
                return
            if isinstance(message, Segment):
                line = await self._line_of(message.key.job.revision)
                task = Task(lease, line, hop.stage, parts=line.decode(message, buffers))
            elif isinstance(message, PartMessage):
                line = await self._line_of(message.meta.key.job.revision)
                task = Task(lease, line, hop.stage, part=decode_part(message, buffers))
            else:
                raise RigflowError(f"a {message.type} has no business in front of {hop.stage}")
            line.stage(hop.stage)
        except (RigflowError, ValueError, KeyError) as error:
            await self._reject_unread(lease, error)
            return
        self._tasks.append(task)
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
        self._settle_down()

    # choosing

    async def _pick(self) -> Task | None:
        """The next task: interactive first (but for bulk's own turn), then furthest down, then first come."""
        self._tasks = [task for task in self._tasks if not task.lease.spoiled]
        if not self._tasks:
            return None
        self._turn += 1
        first = Lane.BULK if self._turn % BULK_TURN == 0 else Lane.INTERACTIVE
        chosen = max(self._tasks, key=lambda task: (task.lease.hop.lane == first, task.depth))
        chosen = self._filling(chosen) or await self._feeding(chosen)
        self._tasks.remove(chosen)
        return chosen

    def _filling(self, chosen: Task) -> Task | None:
        """A segment that has a part ready for the batch that would run now and has room for it; None: there is none."""
        stage = chosen.line.stage(chosen.stage)
        if not isinstance(stage, InferStage):
            return None
        alike = [task for task in self._tasks if task.line is chosen.line and task.stage == chosen.stage]
        if sum(_rows(task.part) for task in alike if task.part is not None) >= chosen.line.most_rows(stage):
            return None
        return next((task for task in self._tasks if task.line is chosen.line and task.has_part), None)

    async def _feeding(self, chosen: Task) -> Task:
        """`chosen`; or, while others wait idle for what queues in front of its stage, what makes more of that."""
        before = [task for task in self._tasks if task.lease is chosen.lease and task.depth < chosen.depth]
        if before and self._waiting(chosen) == 1 and await self.handoff.hungry(chosen.hop):
            return max(before, key=lambda task: task.depth)
        return chosen

    def _spills(self, task: Task) -> bool:
        """Whether a task of ours is for others to do: one like it waits here already, and somebody waits for it."""
        return self._waiting(task) > 0 and self.handoff.spill(task.hop)

    def _waiting(self, task: Task) -> int:
        """How many tasks like this one wait here."""
        return sum(other.stage == task.stage and other.line is task.line for other in self._tasks)

    def _companions(self, task: Task, stage: InferStage) -> list[Task]:
        """Take the other parts that wait for the same stage and fit into its batch, from any segment and job."""
        rows = _rows(_part_of(task))
        found = []
        for other in self._tasks:
            if other.part is None or other.line is not task.line or other.stage != task.stage:
                continue
            if rows + _rows(other.part) <= task.line.most_rows(stage):
                rows += _rows(other.part)
                found.append(other)
        self._tasks = [other for other in self._tasks if other not in found]
        return found

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
                together += self._companions(task, stage)
                await self._infer(together, stage)
            elif stage.kind == "preprocess":
                self._hand_over(task, await self._on_device([task], task.line.preprocess, _part_of(task)))
            else:
                await self._encode(task)
        except Exception as error:
            for failed in together:
                await self._failed(failed, error)

    async def _decode(self, task: Task, parts: Iterator[Part]) -> None:
        part = await self._on_device([task], next, parts, None)
        if part is None:
            self.counts["segments"] += 1
            await self._drop(task.lease)
            return
        self.counts["frames"] += part.meta.frames
        self.counts["lost"] += part.meta.lost
        self._tasks.append(task)
        task.lease.hold()
        self._hand_over(task, part)

    async def _infer(self, together: list[Task], stage: InferStage) -> None:
        parts = [_part_of(task) for task in together]
        outcomes = await self._on_device(together, together[0].line.infer, stage, parts)
        for task, outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, RigflowError):
                await self._failed(task, outcome)
            else:
                self._hand_over(task, outcome)

    async def _encode(self, task: Task) -> None:
        part = _part_of(task)
        body = await self._on_device([task], task.line.encode, part)
        self.counts["results"] += 1
        key = part.meta.key
        self.meter.part(key.job.pipeline, task.stage, part.meta.frames)
        self.meter.sent(key.job.pipeline, task.stage, len(body))
        headers = {HEADER_TYPE: "part", HEADER_MARK: PartMark.of(part.meta).header()}
        self._send(task.lease, self._broker.names.results(key.job), body, key.message_id("result"), headers)

    async def _on_device(self, tasks: list[Task], step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step on the computing thread."""
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
            self._move()

    # handing over and settling

    def _hand_over(self, task: Task, part: Part) -> None:
        """Local first: the next stage in this process; its hop, when it is not here or others wait idle for it."""
        following = task.line.after(task.stage)
        assert following is not None
        self.meter.part(task.line.spec.name, task.stage, part.meta.frames)
        handed = Task(task.lease, task.line, following, part=part)
        if following in task.line.hosted and not self._spills(handed):
            self._tasks.append(handed)
            self._wake.set()
            return
        key = part.meta.key
        subject = self._broker.names.work(key.job.pipeline, following, key.job.lane)
        body = encode_part(part)
        self.meter.sent(key.job.pipeline, task.stage, len(body))
        self._send(task.lease, subject, body, key.message_id(following), {})

    def _send(self, lease: Lease, subject: str, body: bytes, message_id: str, headers: Mapping[str, str]) -> None:
        """Publish while computing goes on; the lease's hold is dropped when the PubAck is there (law 1)."""
        self._unsent_bytes += len(body)

        async def send() -> None:
            try:
                await self._broker.publish(subject, body, message_id, headers)
                self._move()
                await self._drop(lease)
            finally:
                self._unsent_bytes -= len(body)
                self._sent.set()

        sending = asyncio.create_task(send())
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _drop(self, lease: Lease) -> None:
        if await lease.drop():
            self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        self.hand.finish(lease)
        self._settle_down()

    def _settle_down(self) -> None:
        """A lease is gone: there may be room for more, or nothing left to wait for."""
        if not self.hand.leases:
            self._drained.set()
        self._wake.set()
        self.intake.refill()

    async def _failed(self, task: Task, error: Exception) -> None:
        """One piece failed: retry its input, or publish the failure and go on without it (law 5)."""
        disposition = error.disposition if isinstance(error, RigflowError) else Disposition.RETRY
        if disposition is Disposition.FATAL:
            raise error
        last_attempt = task.lease.delivery.deliveries >= self._settings.max_deliver
        if disposition is Disposition.RETRY and not last_attempt:
            self.counts["retries"] += 1
            task.lease.spoil(delay_s=0.5 * task.lease.delivery.deliveries)
        else:
            self.counts["failures"] += 1
            self.meter.failed(task.line.spec.name, task.stage)
            message, _ = decode(await task.lease.delivery.load())
            await self._bury(task.lease, task.stage, message, task.part, error)
        await self._drop(task.lease)

    async def _bury(self, lease: Lease, stage: str, message: object, part: Part | None, error: Exception) -> None:
        """Publish the failure as the piece's result, and the input as a dead letter."""
        start_s, end_s = _span_s(message, part)
        failure = Failure(
            key=_key_of(message) if part is None else part.meta.key,
            stage=stage,
            whole=part is None and isinstance(message, Segment),
            error=str(error) or type(error).__name__,
            detail="" if isinstance(error, RigflowError) else "".join(traceback.format_exception(error))[-1500:],
            start_s=start_s,
            end_s=end_s,
            worker=self._name,
            deliveries=lease.delivery.deliveries,
        )
        source = lease.delivery
        await bury(self._broker, failure, await source.load(), source.subject, source.stream_seq, source.headers)
        facts: dict[str, Fact] = {"job": failure.key.job.id, "segment": failure.key.segment, "stage": stage}
        tell(Event("failed", failure.error, facts=facts))

    async def _reject_unread(self, lease: Lease, error: Exception) -> None:
        """A message that cannot become a task: its pipeline or model is not to be had, or it is no message of ours."""
        disposition = error.disposition if isinstance(error, RigflowError) else Disposition.REJECT
        if disposition is Disposition.RETRY and lease.delivery.deliveries < self._settings.max_deliver:
            lease.spoil(delay_s=1.0)
            await self._drop(lease)
            return
        self.counts["failures"] += 1
        self.meter.failed(lease.hop.pipeline, lease.hop.stage)
        try:
            message, _ = decode(await lease.delivery.load())
            await self._bury(lease, lease.hop.stage, message, None, error)
            await self._drop(lease)
        except (RigflowError, ValueError):  # there is no job to tell
            await lease.terminate(str(error))
            self._forget(lease)

    # leases

    @property
    def still_s(self) -> float:
        """Seconds since work in hand last moved; 0 when there is none, or when all it waits for is the broker."""
        return 0.0 if self._rests else time.monotonic() - self._moved_s

    @property
    def _rests(self) -> bool:
        return not self.hand.leases or (bool(self._sending) and self.step is None)

    def _move(self) -> None:
        self._moved_s = time.monotonic()
        self._moved.set()

    async def _heartbeats(self) -> None:
        """Renew the leases every third of ack_wait, and only when work moves: a stuck engine lets them lapse.

        They are renewed right after a step, so that they end ack_wait after the last one. By then a stuck worker has
        withdrawn what it asked for: what lapses must not come back to it.
        """
        third_s = self._settings.ack_wait_s / 3
        while True:
            await asyncio.sleep(third_s)
            if not await self._moves(third_s):
                self.intake.pause()
                while not await self._moves(third_s):
                    pass
                self.intake.resume()
            now = time.monotonic()
            for lease in list(self.hand.leases):
                due = self._rests or now - lease.taken_s < self._settings.work_deadline_s
                if due and not lease.settled:
                    await lease.delivery.progress()

    async def _moves(self, within_s: float) -> bool:
        """Wait for the end of a step or for a PubAck; true at once when there is nothing to compute."""
        self._moved.clear()
        if self._rests:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        return self._moved.is_set()


def _part_of(task: Task) -> Part:
    assert task.part is not None, "only a decode has no part yet"
    return task.part


def _rows(part: Part) -> int:
    return max(1, len(part.meta.pts))


def _key_of(message: object) -> Key:
    if isinstance(message, Segment):
        return message.key
    if isinstance(message, PartMessage):
        return message.meta.key
    raise RigflowError("a message without a place in a job")


def _span_s(message: object, part: Part | None) -> tuple[float, float]:
    """Seconds of the media that a piece answers for; (0, 0) where that is not a span of time."""
    if part is not None:
        return part.meta.span_s
    return message.span_s if isinstance(message, Segment) else (0.0, 0.0)
