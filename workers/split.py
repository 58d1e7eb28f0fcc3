"""The split stage: raw media from publishers that have only NATS -> segments, as `publish` would have sent them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from engines.media.medium import Input, PipelineMedia
from engines.media.pcm import with_header
from engines.plugins import check_plugins
from pipelines.broker import Broker
from pipelines.collect_requests import request_collect
from pipelines.delivery import Delivery
from pipelines.job_records import JobCancelled, JobRecord, OtherInput, find_manifest
from pipelines.jobs import finish_cancel
from pipelines.known_revisions import KnownRevisions
from pipelines.publish import Publisher
from pipelines.queue_share import QueueShare
from pipelines.quotas import QuotaReached
from pipelines.refusal import given_job, refuse_media, source_of
from pipelines.tracing import Context
from schemas.errors import PipelineError, StoreError, UsageError
from schemas.jobs import JobRef, Manifest
from schemas.pipeline import PipelineSpec
from schemas.results import Failure
from schemas.subjects import HEADER_CONTENT_TYPE, HEADER_NAME, HEADER_REVISION, HEADER_TRACE, given_by
from schemas.wire import Buffer
from workers.computing import T
from workers.failures import Failures
from workers.in_flight import InFlight
from workers.io_intake import AGAIN_S
from workers.media_turns import MediaTurns

Begin = Callable[[Sequence[InFlight]], Awaitable[None]]
FEW_BYTES = 32_768  # for fewer, handing the call to a thread takes longer than the call


class SplitHandler:
    """Takes raw media, asks a collector to finish the job for the publisher, and cuts the media."""

    def __init__(self, broker: Broker, failures: Failures, begin: Begin, withhold: Callable[[str], None]) -> None:
        """`begin` stores that work on a message begins: media may crash the process that reads it.

        `withhold` has no more media of a tenant fetched until its quota admits it.
        """
        self._broker = broker
        self._failures = failures
        self._begin = begin
        self._withhold = withhold
        self._turns = MediaTurns()
        self._revisions = KnownRevisions(broker)
        self._suspects = asyncio.Lock()

    async def run(self, message: InFlight) -> None:
        """Split the media of one message, in its turn; if it cannot become a job, publish the reason."""
        async with self._turns.turn(message):
            await self._run(message)

    async def _run(self, message: InFlight) -> None:
        delivery = message.delivery
        where = delivery.subject, delivery.stream_seq, delivery.headers
        try:
            await self._broker.quotas.check(message.queue.tenant)
        except QuotaReached as error:  # it waits in the tenant's own queue
            self._withhold(message.queue.tenant)
            await message.mark_for_retry(min(error.again_s, AGAIN_S))
            return
        try:
            media = await delivery.load()
        except StoreError as error:  # its object is gone, or damaged
            await refuse_media(self._broker, error, b"", *where)
            return
        try:
            publisher, record = await self._job_of(message, media)
            message.job = record.manifest.job
            if record.manifest.state.ended:
                return  # this message is a repeat
            await self._failures.look_up(message)
            async with self._alone(message):
                await self._begin([message])
                await self._turns.let_pass(message)
                # writes the manifest: a collector refuses a job without one
                await record.change(hosted=True, gathers=publisher.gathers)
                await self._turns.let_pass(message)
                await self._publish(publisher, record, media, delivery)
        except JobCancelled as error:
            await finish_cancel(self._broker, error.job)
        except UsageError as error:
            if message.job is not None and not isinstance(error, OtherInput):
                raise
            await refuse_media(self._broker, error, media, *where)

    @asynccontextmanager
    async def _alone(self, message: InFlight) -> AsyncIterator[None]:
        """Of media that may have crashed a worker split one at a time, so that the next crash has one cause."""
        if not message.poison_candidate:
            yield
            return
        async with self._suspects:
            yield

    async def _job_of(self, message: InFlight, media: Buffer) -> tuple[Publisher, JobRecord]:
        """Begin the job of raw media, or resume it. Raises UsageError when there can be none, PluginMissing."""
        delivery = message.delivery
        tenant, identity = given_job(delivery.subject, delivery.headers, delivery.stream_seq)
        _, _, priority = given_by(delivery.subject)
        spec = await self._pipeline_of(message.queue.pipeline, delivery.headers.get(HEADER_REVISION, ""))
        check_plugins(spec)
        stream = self._broker.names.work_stream(spec.name, spec.decode.name)
        share = QueueShare(self._broker, stream, self._broker.names.consumer(priority, tenant), message.pause)
        publisher = Publisher(self._broker, spec, tenant, priority, hosted=True, share=share)
        source = await _in_thread_if_large(len(media), lambda: source_of(media))
        name = _name_of(delivery) or identity
        trace = delivery.headers.get(HEADER_TRACE, "")
        trace = trace if Context.parse(trace) else ""
        ref = publisher.ref(identity)
        anew = delivery.deliveries == 1 or await self._ended_before(ref, delivery)
        record = await publisher.begin(ref, name, source, anew, len(media), trace)
        return publisher, record

    async def _ended_before(self, job: JobRef, delivery: Delivery) -> bool:
        """Whether a job was over when its media were sent again; they may have waited, and were delivered before."""
        known = await find_manifest(self._broker, job.id, job.tenant)
        return known is not None and 0 < known.ended_s < delivery.stored_ns / 1e9

    async def _pipeline_of(self, name: str, revision: str) -> PipelineSpec:
        """The newest revision of a pipeline, or the one that the publisher chose. Raises PipelineError."""
        spec = await (self._revisions.get(revision) if revision else self._revisions.newest(name))
        if spec.name != name:
            raise PipelineError(f"{revision[:100]!a} is no revision of pipeline {name}", "leave out Rigflow-Revision")
        return spec

    async def _publish(self, publisher: Publisher, record: JobRecord, media: Buffer, delivery: Delivery) -> None:
        """Cut the media and publish it, and have the job collected, also one that cannot be cut."""

        async def publish() -> None:
            content_type = delivery.headers.get(HEADER_CONTENT_TYPE, "")
            body = await _in_thread_if_large(len(media), lambda: with_header(media, content_type))
            given = Input(body, record.manifest.name)
            kind = PipelineMedia(publisher.spec).recognised(given).kind
            await publisher.publish(record.manifest.job, kind, [given], record)

        asking = self._ask_for_collect(record.manifest, delivery)
        for failed in await asyncio.gather(asking, publish(), return_exceptions=True):
            if failed is not None:
                raise failed

    async def on_failure(self, message: InFlight, failure: Failure) -> None:
        """Have the job collected, which ends it: attempts whose worker died may not have asked for that."""
        job, delivery = failure.key.job, message.delivery
        with contextlib.suppress(JobCancelled):  # its subscribers have its Done already
            record = await JobRecord.current(self._broker, job)
            if record is None:  # the last one died before it was written
                name, now_s = _name_of(delivery) or job.id, self._broker.now_s()
                record = JobRecord(self._broker, Manifest(job=job, name=name, created_s=now_s))
            await record.change(hosted=True)  # a collector refuses a job without a manifest
            await self._ask_for_collect(record.manifest, delivery)

    async def _ask_for_collect(self, manifest: Manifest, delivery: Delivery) -> None:
        """Ask once for each message of media: a message that is sent again is collected again."""
        await request_collect(self._broker, manifest, f"{manifest.job.identity}/{delivery.stream_seq}")


async def _in_thread_if_large(nbytes: int, call: Callable[[], T]) -> T:
    """Return the answer of a call whose time grows with the bytes: in a thread if there are many."""
    return call() if nbytes <= FEW_BYTES else await asyncio.to_thread(call)


def _name_of(delivery: Delivery) -> str:
    """The file's name from the header; invalid UTF-8 is replaced."""
    given = delivery.headers.get(HEADER_NAME, "")
    return given.encode(errors="surrogateescape").decode(errors="replace")
