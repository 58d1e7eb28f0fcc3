"""Results -> ordered, complete, on disk. One collector follows many jobs through one consumer."""

import asyncio
import hashlib
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engines.outputs.format import Assembler, Format, load_format

from engines.part import unpack_arrays
from pipelines.broker import Broker
from pipelines.order import JobOrder
from pipelines.pull import Delivery, Pull
from schemas.messages import Done, Failure, Fragment, JobRef, PartMeta, Result, decode
from schemas.pipeline import PipelineSpec
from schemas.subjects import HEADER_TYPE

OnPart = Callable[[str, PartMeta], None]
Deliver = Callable[[JobRef, list[Path]], Awaitable[None]]  # called with the finished files, before Done is published
HELD_BYTES = 32 << 20  # results ahead of their turn that stay in memory; more goes to a temporary file
REQUESTED = 16  # results asked for at a time


@dataclass(slots=True)
class _Held:
    """A body that waits for its turn, in memory or in the spool."""

    body: bytes | memoryview | None
    offset: int
    nbytes: int


@dataclass(slots=True)
class _Job:
    """One job being collected."""

    ref: JobRef
    target: Path
    finished: "asyncio.Future[Done]"
    order: JobOrder[_Held] = field(default_factory=JobOrder)
    assembler: Assembler | None = None
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    frames: int = 0
    lost: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Collector:
    """Collects jobs of one pipeline revision: `open`, then `wait` for each job, then `close`."""

    def __init__(
        self, broker: Broker, spec: PipelineSpec, on_part: OnPart = lambda *_: None, deliver: Deliver | None = None
    ) -> None:
        self._broker = broker
        self._format: Format = load_format(spec.encode)
        self._on_part = on_part
        self._deliver = deliver
        self._jobs: dict[str, _Job] = {}
        self._pull: Pull | None = None
        self._consumer = ""
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="rigflow-spool-")  # noqa: SIM115, closed in close()
        self._spool_end = 0
        self._held_bytes = 0
        self._busy = asyncio.Lock()
        self._seen: list[int] = []
        self._seen_bytes = 0

    async def open(self, targets: Mapping[JobRef, Path]) -> None:
        """Follow these jobs; `targets` are paths without suffix. Results published before now count too."""
        loop = asyncio.get_running_loop()
        self._jobs = {ref.id: _Job(ref, target, loop.create_future()) for ref, target in targets.items()}
        self._consumer = f"collect-{uuid.uuid4().hex[:12]}"
        subjects = [self._broker.names.results(ref) for ref in targets]
        await self._broker.create_reader(self._broker.names.results_stream, self._consumer, subjects)
        self._pull = Pull(self._broker, self._broker.names.results_stream, self._consumer, self._on_delivery)
        await self._pull.open()
        self._pull.request(REQUESTED)

    async def wait(self, job: str) -> Done:
        """The job's Done, once its files are in place. Raises what made collecting impossible (OutputError, say)."""
        return await self._jobs[job].finished

    def abandon(self, job: str) -> None:
        """Stop following a job; what was written of it goes away."""
        abandoned = self._jobs.pop(job)
        abandoned.finished.cancel()
        if abandoned.assembler is not None:
            abandoned.assembler.abort()

    async def close(self) -> None:
        """Stop; jobs that are not finished leave nothing half-written."""
        if self._pull is not None:
            await self._pull.close()
            await self._broker.delete_consumer(self._broker.names.results_stream, self._consumer)
        for job in [job for job in self._jobs.values() if not job.finished.done()]:
            self.abandon(job.ref.id)
        self._spool.close()

    async def _on_delivery(self, delivery: Delivery) -> None:
        assert self._pull is not None
        async with self._busy:  # bodies are taken one by one: assembling is ordered work
            await self._take(delivery)
        self._pull.request(REQUESTED - self._pull.outstanding)

    async def _take(self, delivery: Delivery) -> None:
        job = self._jobs.get(delivery.subject.rsplit(".", 1)[1])
        if job is None or job.finished.done():
            return
        body = await delivery.load()
        message, _ = decode(body)
        if not isinstance(message, Result | Fragment | Failure):
            return
        held = _Held(body, -1, len(body))
        if not job.order.offer(message, held):
            return
        if isinstance(message, Result):
            self._on_part(job.ref.id, message.meta)
        self._held_bytes += held.nbytes
        try:
            await asyncio.to_thread(self._assemble, job)
        except Exception as error:
            if job.assembler is not None:
                job.assembler.abort()
            job.finished.set_exception(error)
            return
        if held.body is not None and self._held_bytes > HELD_BYTES:
            await asyncio.to_thread(self._to_spool, held)
        await self._relieve(delivery.stream_seq, held.nbytes)
        if job.order.complete:
            await self._finish(job)

    # assembling, off the event loop

    def _assemble(self, job: _Job) -> None:
        """Hand over all that is in order by now."""
        while (held := job.order.take()) is not None:
            message, buffers = decode(self._body_of(held))
            self._held_bytes -= held.nbytes if held.offset < 0 else 0
            held.body = None
            if isinstance(message, Failure):
                job.failures.append(_describe(message))
                continue
            assert isinstance(message, Result | Fragment)
            media = message.meta.media if isinstance(message, Result) else message.media
            if job.assembler is None:
                job.assembler = self._format.assemble(job.target, media)
            if isinstance(message, Fragment):
                job.assembler.add_sound(message.container, buffers[0])
            else:
                self._add(job, job.assembler, message, buffers)

    def _add(self, job: _Job, assembler: Assembler, result: Result, buffers: list[memoryview]) -> None:
        assembler.add(result.meta, unpack_arrays(result.arrays, buffers), result.facts)
        for buffer in buffers:
            job.digest.update(buffer)
        job.frames += result.meta.frames
        job.lost += result.meta.lost
        job.failures += [f"{item.name}: {item.error}" for item in result.meta.items if item.error]
        job.notes += [note for note in result.meta.notes if note not in job.notes]

    def _body_of(self, held: _Held) -> bytes | memoryview:
        if held.body is not None:
            return held.body
        self._spool.seek(held.offset)
        return self._spool.read(held.nbytes)

    def _to_spool(self, held: _Held) -> None:
        assert held.body is not None
        self._spool.seek(self._spool_end)
        self._spool.write(held.body)
        held.offset, held.body = self._spool_end, None
        self._spool_end += held.nbytes
        self._held_bytes -= held.nbytes

    # the stream

    async def _relieve(self, sequence: int, nbytes: int) -> None:
        """Delete what we have from a stream that fills up: a job's results may be larger than the stream (law 4)."""
        self._seen.append(sequence)
        self._seen_bytes += nbytes
        if self._seen_bytes < self._broker.settings.results_bytes // 8:
            return
        stored_bytes = await self._broker.stream_bytes(self._broker.names.results_stream)
        if stored_bytes > self._broker.settings.results_bytes // 2:
            for seen in self._seen:
                await self._broker.delete_message(self._broker.names.results_stream, seen)
            self._seen = []
        self._seen_bytes = 0

    async def _finish(self, job: _Job) -> None:
        try:
            files = [] if job.assembler is None else await asyncio.to_thread(job.assembler.close)
        except Exception as error:
            job.finished.set_exception(error)
            return
        if job.assembler is not None:
            job.notes += job.assembler.notes
        done = Done(
            job=job.ref,
            segments=job.order.segments,
            frames=job.frames,
            lost=job.lost,
            failures=tuple(job.failures),
            digest=job.digest.hexdigest(),
            files=tuple(file.name for file in files),
            notes=tuple(job.notes),
        )
        if self._deliver is not None:
            await self._deliver(job.ref, files)
        subject = self._broker.names.results(job.ref)
        identity = f"{job.ref.space}/{job.ref.id}/{job.ref.revision}/done"
        await self._broker.publish(subject, done.encode(), identity, {HEADER_TYPE: "done"})
        delivered = len(files) if self._deliver is not None else 0
        await self._broker.purge(self._broker.names.results_stream, subject, keep=1 + delivered)
        job.finished.set_result(done)


def _describe(failure: Failure) -> str:
    """One line for people: which seconds are missing, where it failed, and why."""
    span = f"{failure.start_s:.2f} to {failure.end_s:.2f} s, " if failure.end_s > failure.start_s else ""
    return f"{span}{failure.stage}: {failure.error}"
