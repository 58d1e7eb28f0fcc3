"""The client of a fleet: submits jobs from files, bytes and streams, and finds jobs.

The command line, the folder runs and the gateway all run jobs through it.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engines.media.medium import Input, PipelineMedia
from pipelines.broker import Broker
from pipelines.job import Job, OpenJob
from pipelines.job_records import JobRecord
from pipelines.jobs import begin
from pipelines.publish import OnSent, Publisher, job_id, job_name
from pipelines.raw_media import ReceivedMedia, forget, publish_media, receive
from pipelines.registry import load_pipeline
from schemas.declared import is_token
from schemas.errors import UsageError
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.wire import Buffer

T = TypeVar("T")
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
        paths = (given.source for given in self.inputs if isinstance(given.source, Path))
        return sum(path.stat().st_size for path in paths if path.exists())

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
        """A job by its id. Raises UsageError when the broker does not know it."""
        ref = JobRef(id=job, tenant=self.tenant, pipeline="any", revision="any") if is_token(job) else None
        record = None if ref is None else await JobRecord.read(self.broker, ref)
        if record is None:
            raise UsageError(f"the broker knows no job {job}", "see `rigflow jobs list`")
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
        patience_s: float = PATIENCE_S,
    ) -> Job:
        """Submit a media to a pipeline that the fleet knows; returns once all of it is at the broker.

        Files are split here, and wait while the fleet is full. Bytes, and a stream of `size` bytes or of an unknown
        number, go as they are to the stage `split`; a worker collects their results. Where a stream ends with an error
        or this is cancelled before all bytes came, nothing stays.

        The same `job` with the same input is the job that is known. Raises OtherInput when it has another input or
        pipeline; FleetFull when the fleet stays full for `patience_s`; MediaError, PipelineError, BrokerError.
        """
        spec = pipeline if isinstance(pipeline, PipelineSpec) else await load_pipeline(self.broker, pipeline)
        if job and not is_token(job):
            raise UsageError(f"job id {job[:100]!a}", "use letters, digits, - and _, at most 64")
        if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray | memoryview):
            files = await asyncio.to_thread(Files.of, spec, source)
            opened = await self.open(spec, files, job=job, priority=priority)
            await opened.send()
            return opened
        media = await receive(self.broker, source, size, patience_s)
        chosen = isinstance(pipeline, PipelineSpec)
        ref = self.ref(spec, job or uuid.uuid4().hex[:20], priority)
        publishing = asyncio.create_task(self._publish(ref, chosen, media, name, content_type, patience_s))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._published)
        return await asyncio.shield(publishing)

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
        publisher = Publisher(self.broker, spec, self.tenant, priority, self.on_sent, submitter=self.submitter)
        ref, nbytes = publisher.ref(job or files.identity), await asyncio.to_thread(lambda: files.nbytes)
        record = await publisher.begin(ref, files.name, files.identity, again, nbytes)
        return OpenJob(self.broker, record, publisher, files.kind, files.inputs)

    async def _publish(
        self, ref: JobRef, chosen: bool, media: ReceivedMedia, name: str, content_type: str, patience_s: float
    ) -> Job:
        """Make a job of media that came entirely. `chosen`: the caller named this revision of the pipeline."""
        published = False
        try:
            known = await JobRecord.read(self.broker, ref)
            if known is not None and not chosen and known.manifest.job.pipeline == ref.pipeline:
                # the caller repeats its request, and the pipeline may have been updated meanwhile
                ref = ref.model_copy(update={"revision": known.manifest.job.revision})
            wanted = Manifest(job=ref, name=name or ref.id, source=media.source)
            told = {"submitter": self.submitter, "nbytes": media.size}
            record = await begin(self.broker, wanted.model_copy(update=told))
            manifest = record.manifest
            if manifest.state is not JobState.PUBLISHING:
                return Job(self.broker, record)
            published = True  # from here on `publish_media` removes what is not needed
            try:
                await publish_media(self.broker, manifest.job, media, name, content_type, patience_s)
            except BaseException:
                if known is not None and known.manifest.job.generation < manifest.job.generation:
                    await Job(self.broker, record).cancel()
                raise
            if not await record.write(manifest.model_copy(update={"hosted": True})):
                await record.refresh()  # the worker that splits it was there before
            return Job(self.broker, record)
        finally:
            if not published:
                await forget(self.broker, media)
