"""Collects the results of jobs into files. One collector follows many jobs through one consumer."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from engines.encoding import Format, Origin
from engines.gathering import gathering_stage
from engines.outputs.format import load_format
from pipelines.blobs import discard_claims
from pipelines.broker import Broker
from pipelines.cards import doubts
from pipelines.claims import claim_of
from pipelines.collecting import CollectedJob, Compare, Deliver, OnPart, OnShare, generation_of, marks_of
from pipelines.delivery import Delivery
from pipelines.finishing import finish
from pipelines.in_thread import in_thread
from pipelines.jetstream import Gone
from pipelines.job_records import CollectedElsewhere, JobCancelled
from pipelines.jobs import finish_cancel
from pipelines.lost_jobs import LOST_S, why_collected_lost
from pipelines.pull import Pull
from pipelines.queued import is_idle
from pipelines.relief import Relief
from pipelines.retention import Retention
from pipelines.spool import Piece, Spool
from schemas.base import Message
from schemas.cards import Doubts
from schemas.errors import RigflowError
from schemas.jobs import JobRef
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from schemas.results import Done, Failure, Result
from schemas.segments import Fragment
from schemas.subjects import HEADER_BLOB, HEADER_TYPE

Step = Callable[[], Awaitable[None]]  # no coroutine: a task that is cancelled before it begins would leave it unawaited
NOTE_S = 1.0  # how often progress goes into the manifests of jobs that are still at work
REQUESTED = 16  # results asked for at a time, at most
RESULT_PIECES = frozenset({"part", "fragment", "failure"})  # the other types are finished files and Done


class Collector:
    """Collects jobs of one pipeline revision: `open`, then `wait` for each job, then `close`.

    All results that were published before `open` are read before any failure counts: a retry of its dead letter may
    have replaced it. Results of a job without failures are deleted once its files are in place; those of a job with
    failures stay for as long as results are kept, so that a retry can complete it and it can be collected again.
    """

    def __init__(
        self,
        broker: Broker,
        spec: PipelineSpec,
        on_part: OnPart = lambda *_: None,
        on_share: OnShare = lambda *_: None,
        deliver: Deliver | None = None,
        retention: Retention | None = None,
        compare: Compare = lambda *_: (),
        doubted: Doubts | None = None,
    ) -> None:
        self._broker, self._spec = broker, spec
        self._doubted, self._again = doubted or Doubts(), uuid.uuid4().hex if doubted else ""
        self._models = spec.models
        self._format: Format = load_format(spec.encode)
        self._gathers = gathering_stage(spec)
        self._on_part, self._on_share = on_part, on_share
        self._deliver, self._compare = deliver, compare
        self._retention = retention or Retention(broker)
        self._jobs: dict[str, CollectedJob] = {}
        self._pull: Pull | None = None
        self._consumer = self._stream = ""
        self._spool = Spool()
        self._relief = Relief(broker)
        self._busy = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog: int | None = None  # messages from before `open` that have not arrived; None before the first one
        self._moved_s = 0.0  # when the last result came

    async def open(self, targets: Mapping[JobRef, Path], sources: Mapping[JobRef, Sequence[str]] | None = None) -> None:
        """Follow these jobs from their first result on; `targets` have no suffix, `sources` are as in `Origin`."""
        origins = {ref: Origin(ref.revision, self._models, tuple((sources or {}).get(ref, ()))) for ref in targets}
        future = asyncio.get_running_loop().create_future
        self._jobs = {
            ref.id: CollectedJob(ref, target, future(), origins[ref], self._gathers) for ref, target in targets.items()
        }
        self._consumer = f"collect-{uuid.uuid4().hex[:12]}"
        tenant = next(iter(targets)).tenant  # of all of them
        stream = self._stream = self._broker.names.results_of(tenant)
        await self._broker.create_reader(stream, self._consumer, [*map(self._broker.names.results, targets)])
        self._relief.tenant = tenant
        self._pull = Pull(self._broker, stream, self._consumer, self._on_delivery, self._on_gone)
        await self._pull.open()
        self._pull.request(REQUESTED)
        self._moved_s = time.monotonic()
        self._tasks = {asyncio.create_task(self._note())}

    async def wait(self, job: str) -> Done:
        """The Done of a published job, once its files are in place. Raises what ended it; Gone: lost results."""
        self._jobs[job].awaited = True
        return await asyncio.shield(self._jobs[job].finished)  # a wait that is cancelled does not end the job

    def abandon(self, job: str) -> None:
        """Stop following a job, and remove what was written of it."""
        abandoned = self._jobs.pop(job)
        abandoned.finished.cancel()
        abandoned.abort()

    async def close(self) -> None:
        """Stop; jobs that are not finished leave nothing half-written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pull is not None:
            await self._pull.close()
            await self._broker.drop_reader(self._stream, self._consumer)
        for job in self._unfinished():
            self.abandon(job.ref.id)
        self._spool.close()

    async def _on_delivery(self, delivery: Delivery) -> None:
        assert self._pull is not None
        async with self._busy:  # one at a time: a job is assembled in order
            self._moved_s = time.monotonic()
            caught_up = self._caught_up
            self._backlog = delivery.pending if self._backlog is None else self._backlog - 1
            if delivery.pending == 0:
                self._backlog = 0
            job = self._jobs.get(delivery.subject.rsplit(".", 1)[1])
            if job is not None and not job.finished.done():
                await self._guarded(job, partial(self._take, job, delivery, caught_up))
            if self._caught_up and not caught_up:
                for waiting in self._unfinished():
                    await self._guarded(waiting, partial(self._go_on, waiting))
        if self._pull.outstanding <= REQUESTED // 2:  # several requests travel together
            self._pull.request(REQUESTED - self._pull.outstanding)

    @property
    def _caught_up(self) -> bool:
        return self._backlog is not None and self._backlog <= 0

    async def _guarded(self, job: CollectedJob, step: Step) -> None:
        """Take a step of a job. Any error ends this job alone: `wait` raises it."""
        try:
            await step()
        except Exception as error:
            await self._end(job, error)

    async def _end(self, job: CollectedJob, error: Exception) -> None:
        if isinstance(error, JobCancelled):
            with contextlib.suppress(RigflowError):
                await finish_cancel(self._broker, job.ref)
        job.fail(error)

    async def _take(self, job: CollectedJob, delivery: Delivery, waited: bool) -> None:
        blob = claim_of(delivery.subject, delivery.headers)
        if not job.finishing:  # what comes then stays: files and the Done, also of a collector that died
            job.last_seq, job.complete_s = delivery.stream_seq, 0.0 if waited else delivery.stored_ns / 1e9
            job.blobs += [blob] if blob else []
        if delivery.headers.get(HEADER_TYPE, "") not in RESULT_PIECES | {"done"}:
            return
        if HEADER_BLOB in delivery.headers and not blob:
            job.skipped = (
                job.skipped or "a message among the results names the object of another message, and was skipped"
            )
            return
        try:
            message, buffers = decode(body := await delivery.load())
        except ValueError as error:
            job.skipped = job.skipped or f"a message among the results cannot be decoded, and was skipped: {error}"
            return
        if not isinstance(message, Result | Fragment | Failure | Done):
            return
        if self._in_doubt(message):  # what is deleted is gone, and its card may work again since the last look
            self._doubted = await doubts(self._broker)
        if generation_of(message) != job.ref.generation or self._in_doubt(message):
            if generation_of(message) <= job.ref.generation:  # from before the job, or its part, was started again
                await self._broker.delete_message(self._stream, delivery.stream_seq)
                await discard_claims(self._broker, self._broker.names.blobs_of(job.ref.tenant), [blob])
            return
        if isinstance(message, Done):
            await self._take_done(job, message)
            return
        if job.finishing or not job.order.offer(message, piece := Piece(body, (message, buffers), len(body))):
            return
        if isinstance(message, Result):
            self._on_part(job.ref.id, message.meta)
        self._spool.put(piece)
        await self._go_on(job)
        piece.decoded = None
        if piece.body is not None and self._spool.full:
            await asyncio.to_thread(self._spool.to_disk, piece)
        if await self._relief.is_due(delivery.stream_seq, blob, piece.nbytes):
            await self._note_evicted()
            await self._relief.delete()

    def _in_doubt(self, message: Message) -> bool:
        return self._doubted.any(marks_of(message))

    async def _take_done(self, job: CollectedJob, done: Done) -> None:
        """Another process published the job's Done, or `finish` did. Raises CollectedElsewhere."""
        if done.cancelled:
            job.fail(JobCancelled(job.ref))
            return
        job.published = done
        if not done.failures and not job.finishing:
            raise CollectedElsewhere(done)

    async def _go_on(self, job: CollectedJob) -> None:
        if job.finishing:
            return
        await in_thread(self._assemble, job)
        segment = job.order.gathered if self._caught_up else None
        if incomplete := segment is not None and job.failures.count > 0:
            job.note_incomplete()
        if job.order.complete or incomplete:
            job.finishing = True
            self._in_background(job, partial(self._finish, job))  # takes minutes where a film is drawn on
        elif segment is not None and not job.gathered:
            job.gathered = True
            self._in_background(job, partial(job.send_gathered, self._broker, segment, self._again))

    def _in_background(self, job: CollectedJob, step: Step) -> None:
        """Take a step of a job in a task of its own, so that results of other jobs are taken meanwhile."""
        task = asyncio.create_task(self._guarded(job, step))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _assemble(self, job: CollectedJob) -> None:
        """Give the job all pieces that are next in order. Called off the event loop."""
        while (piece := job.order.take(failures=self._caught_up)) is not None:
            job.add(*self._spool.take(piece), self._format)

    async def _note(self) -> None:
        """Write progress into manifests regularly, which survive this process; end jobs whose results are lost."""
        while True:
            await asyncio.sleep(NOTE_S)
            async with self._busy:
                for job in self._unfinished():
                    if job.share:
                        self._on_share(job.ref.id, job.share)
                    if job.has_news:
                        await self._guarded(job, partial(job.note_progress, self._broker))
            if self._moved_s + LOST_S < time.monotonic():
                await self._end_lost_jobs()
                self._moved_s = time.monotonic()

    async def _on_gone(self, error: Gone) -> None:
        """The stream of results was deleted: end all jobs with that error."""
        async with self._busy:
            for job in self._unfinished():
                job.fail(error)

    async def _end_lost_jobs(self) -> None:
        """End jobs of which results are missing and cannot come any more; see `pipelines.lost_jobs`."""
        with contextlib.suppress(RigflowError):  # the broker does not answer: check again later
            pipelines = {job.ref.pipeline for job in self._unfinished()}
            idle = [one for one in pipelines if await is_idle(self._broker, one)]
            reader = await self._broker.api_unless_gone(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
            if reader is None or reader["num_pending"]:  # one that is gone is made again, and reads first
                idle = []
            async with self._busy:  # what has come meanwhile is taken first
                if self._moved_s + LOST_S < time.monotonic():
                    for job in (each for each in self._unfinished() if not each.finishing):
                        facts = job.awaited, bool(self._again), job.ref.pipeline in idle
                        if (error := await why_collected_lost(self._broker, job.ref, *facts)) is not None:
                            await self._end(job, error)

    async def _note_evicted(self) -> None:
        """Mark jobs whose results are about to be deleted: a collector that starts later cannot complete them."""
        for job in self._unfinished():
            if job.last_seq:
                await self._guarded(job, partial(job.note_evicted, self._broker))

    def _unfinished(self) -> list[CollectedJob]:
        return [job for job in self._jobs.values() if not job.finished.done()]

    async def _finish(self, job: CollectedJob) -> None:
        await finish(self._broker, job, self._compare, self._deliver, self._retention, self._anew)

    async def _anew(self, job: CollectedJob, doubted: Doubts) -> Done:
        """Collect a job from its first result on, without what is in doubt."""
        given = (lambda *_: None), self._on_share, self._deliver, self._retention, self._compare
        again = Collector(self._broker, self._spec, *given, doubted)
        try:
            await again.open({job.ref: job.target}, {job.ref: job.origin.sources})
            return await again.wait(job.ref.id)
        finally:
            await again.close()
