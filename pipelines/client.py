"""The client of a fleet: submits jobs from files, bytes and streams, and finds jobs.

The command line, the folder runs and the gateway all run jobs through it.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engines.media.medium import Input, PipelineMedia
from pipelines import revisions
from pipelines.broker import Broker
from pipelines.job import Job, OpenJob
from pipelines.job_records import JobCancelled, JobRecord, check_same, job_place
from pipelines.jobs import begin
from pipelines.known_revisions import KnownRevisions
from pipelines.publish import OnSent, Publisher, job_id, job_name
from pipelines.raw_media import UNKNOWN_BYTES, ReceivedMedia, forget, publish_media, receive
from pipelines.tracing import incoming
from schemas.declared import TOKEN_HINT, is_token
from schemas.errors import NotFound, UsageError
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.wire import Buffer

T = TypeVar("T")
IN_MEMORY_BYTES = 64 << 20  # of media that come in, over one connection; more go through the blob store
PATIENCE_S = 600.0  # how long media waits for a full fleet
Source = Sequence[Path] | Buffer | AsyncIterable[Buffer]


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one kind of media, which make one job. `identity` stands for them, `name` is for people."""

    kind: str
    inputs: Sequence[Input]
    identity: str
    name: str

    @property
    def nbytes(self) -> int:
        """The size of all of them; those that are gone have none."""
        total = 0
        for given in self.inputs:
            with suppress(OSError):
                total += os.stat(given.source).st_size if isinstance(given.source, Path) else 0
        return total

    @classmethod
    def of(cls, spec: PipelineSpec, paths: Sequence[Path]) -> "Files":
        """Files on this machine, looked at. Raises UsageError when they make more than one job, MediaError, OSError."""
        real = [os.path.realpath(path) for path in paths]
        inputs = [Input(path, path.name, each) for path, each in zip(paths, real, strict=True)]
        media = [PipelineMedia(spec).recognised(given) for given in inputs]
        if len({each.kind for each in media}) != 1 or (len(media) > 1 and media[0].timed):
            raise UsageError(f"{len(media)} files make more than one job", "submit them one by one")
        kind = media[0].kind
        identity = job_id(spec, ((each, os.stat(each)) for each in real))
        return cls(kind, inputs, identity, job_name(kind, [path.name for path in paths]))


class Client:
    """Runs jobs of a fleet over one connection; without a `tenant`, those of the settings' tenant.

    `on_sent` is called as files are sent: the job's id, seconds of media and segments that are at the broker.
    `submitter` is the name of the API key that the jobs come with.
    """

    def __init__(
        self,
        broker: Broker,
        tenant: str = "",
        on_sent: OnSent = lambda *_: None,
        submitter: str | None = None,
    ) -> None:
        self.broker = broker
        self.tenant = tenant or broker.settings.tenant
        self.on_sent = on_sent
        self.submitter = submitter
        self._publishing: set[asyncio.Task[Job]] = set()

    @classmethod
    @asynccontextmanager
    async def connected(cls, settings: Settings, name: str = "rigflow-client") -> AsyncIterator["Client"]:
        """A client of the fleet at `settings.nats` for a block. Raises BrokerError, UsageError."""
        async with Broker.connected(settings, name) as broker:
            client = cls(broker)
            try:
                yield client
            finally:
                await client.close()

    async def close(self) -> None:
        """Wait for jobs whose media came entirely and whose publishing is under way."""
        await asyncio.gather(*self._publishing, return_exceptions=True)

    def ref(self, spec: PipelineSpec, job: str, priority: Priority = Priority.BULK) -> JobRef:
        """The reference of a job of this id, in its first generation."""
        return JobRef(id=job, tenant=self.tenant, pipeline=spec.name, revision=spec.revision, priority=priority)

    async def find(self, job: str) -> Job:
        """A job by its id. Raises NotFound when the broker does not know it."""
        ref = JobRef(id=job, tenant=self.tenant, pipeline="any", revision="any") if is_token(job) else None
        record = None if ref is None else await JobRecord.read(self.broker, ref)
        if record is None:
            raise NotFound(f"the broker knows no job {job}", "see `rigflow jobs list`")
        return Job(self.broker, record)

    async def submit(
        self,
        pipeline: PipelineSpec | str,
        source: Source,
        *,
        job: str = "",
        name: str = "",
        content_type: str = "",
        priority: Priority = Priority.BULK,
        size: int | None = None,
        at_most: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Job:
        """Submit a media to a pipeline that the fleet knows; returns once all of it is at the broker.

        Files are split here, and wait while the fleet is full. Bytes, and a stream of `size` bytes or of an unknown
        number, `at_most` so many, go as they are to the stage `split`; a worker collects their results. Where a stream
        ends with an error or this is cancelled before all bytes came, nothing stays.

        The same `job` with the same input is the job that is known. Raises OtherInput when it has another input or
        pipeline, unless it was cancelled; FleetFull when the fleet stays full for `patience_s`; MediaError,
        PipelineError, BrokerError.
        """
        await self.broker.quotas.check(self.tenant)
        known, chosen = KnownRevisions.of(self.broker), isinstance(pipeline, PipelineSpec)
        spec = pipeline if isinstance(pipeline, PipelineSpec) else await known.newest(pipeline)
        if job and not is_token(job):
            raise UsageError(f"job id {job[:100]!a}", TOKEN_HINT)
        if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray | memoryview):
            files = await asyncio.to_thread(Files.of, spec, source)
            opened = await self.open(spec, files, job=job, priority=priority)
            await opened.send()
            return opened
        with self._in_memory(size) as most_bytes:
            bucket = self.broker.names.uploads_of(self.tenant)
            media = await receive(self.broker, bucket, source, size, most_bytes, patience_s, at_most)
            await (revisions.keep(self.broker, spec) if chosen else known.keep(spec))
            ref = self.ref(spec, job or uuid.uuid4().hex[:20], priority)
            return await self.begin(ref, media, name, content_type, patience_s, chosen, own_id=not job)

    async def begin(
        self,
        ref: JobRef,
        media: ReceivedMedia,
        name: str,
        content_type: str,
        patience_s: float,
        chosen: bool,
        own_id: bool = False,
    ) -> Job:
        """Make a job of media that came entirely. `chosen`: the caller named this revision of the pipeline.

        `own_id`: the id was made for this job, so that no other has it.

        It goes on if the caller is cancelled. Raises as `submit`.
        """
        wanted = Manifest(
            job=ref,
            name=name or ref.id,
            source=media.source,
            nbytes=media.size,
            created_s=self.broker.now_s(),
            submitter=self.submitter,
            trace=incoming.get(),
        )
        publishing = asyncio.create_task(self._publish(wanted, chosen, media, content_type, patience_s, own_id))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._published)
        return await asyncio.shield(publishing)

    @contextmanager
    def _in_memory(self, size: int | None) -> Iterator[int]:
        """How many bytes of a media of this size may be in memory: none, where that is used up by others."""
        wanted = min(UNKNOWN_BYTES if size is None else size, self.broker.max_body)
        free = IN_MEMORY_BYTES - self.broker.media_bytes
        most = wanted if wanted <= free and (size is None or wanted == size) else 0
        self.broker.media_bytes += most
        try:
            yield most
        finally:
            self.broker.media_bytes -= most

    def _published(self, publishing: "asyncio.Task[Job]") -> None:
        self._publishing.discard(publishing)
        if not publishing.cancelled():
            publishing.exception()  # the caller may be gone, and nothing else reads it

    async def open(
        self,
        spec: PipelineSpec,
        files: Files,
        *,
        job: str = "",
        priority: Priority = Priority.BULK,
        again: bool = False,
    ) -> OpenJob:
        """Begin or continue a job of files, without sending it; see `pipelines.jobs.begin`. Raises OtherInput."""
        await self.broker.quotas.check(self.tenant)
        await revisions.keep(self.broker, spec)
        publisher = Publisher(self.broker, spec, self.tenant, priority, self.on_sent, submitter=self.submitter)
        ref, nbytes = publisher.ref(job or files.identity), await asyncio.to_thread(lambda: files.nbytes)
        record = await publisher.begin(ref, files.name, files.identity, again, nbytes)
        return OpenJob(self.broker, record, publisher, files.kind, files.inputs)

    async def _publish(
        self,
        wanted: Manifest,
        chosen: bool,
        media: ReceivedMedia,
        content_type: str,
        patience_s: float,
        own_id: bool,
    ) -> Job:
        published = False
        try:
            known, record = await self._begun(wanted, chosen, own_id)
            manifest, before = record.manifest, known.manifest.job.generation if known is not None else -1
            job = Job(self.broker, record, new=manifest.job.generation > before)
            if manifest.state is not JobState.PUBLISHING:
                return job
            published = True  # from here on `publish_media` removes what is not needed
            try:
                await publish_media(self.broker, manifest, media, content_type, patience_s)
            except BaseException:
                await self._take_back(known, record)
                raise
            return job
        finally:
            if not published:
                await forget(self.broker, media)

    async def _begun(self, wanted: Manifest, chosen: bool, own_id: bool) -> tuple[JobRecord | None, JobRecord]:
        """The job as it was known before, if it was, and its record: written, unless it is published already."""
        while True:
            known = None if own_id else await JobRecord.read(self.broker, wanted.job)
            if known is not None and not chosen and known.manifest.job.pipeline == wanted.job.pipeline:
                # the caller repeats its request, and the pipeline may have been updated meanwhile
                job = wanted.job.model_copy(update={"revision": known.manifest.job.revision})
                wanted = wanted.model_copy(update={"job": job})
            if known is not None and known.manifest.state is not JobState.CANCELLED:
                check_same(known.manifest, wanted)  # also where the job failed or its results are gone
            record = JobRecord(self.broker, wanted) if own_id else await begin(self.broker, wanted)
            if known is None and record.stored:
                continue  # another process began it meanwhile, perhaps with other media
            manifest = record.manifest.model_copy(update={"hosted": True})
            if record.manifest.state is not JobState.PUBLISHING or await record.write(manifest):
                return known, record
            with suppress(JobCancelled):
                await record.refresh()
                if not record.stored and await record.write(manifest):  # a job of this id was deleted before
                    return known, record
            own_id = False  # another process has begun a job of this id

    async def _take_back(self, known: JobRecord | None, record: JobRecord) -> None:
        """Forget a job whose media was refused; one that was known before, and was started again, is cancelled."""
        job = record.manifest.job
        if known is None:
            await self.broker.delete_key(*job_place(self.broker, job))
        elif known.manifest.job.generation < job.generation:
            await Job(self.broker, record).cancel()
