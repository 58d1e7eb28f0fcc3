"""The collect stage: finishes jobs for publishers that have only NATS, and publishes their files."""

import asyncio
import contextlib
import hashlib
import mimetypes
import re
import tempfile
from pathlib import Path

from pipelines.broker import Broker
from pipelines.collect import CollectedElsewhere, Collector
from pipelines.inventory import describe
from pipelines.jobs import JobCancelled, JobRecord, Thinned, end, publish_done
from pipelines.pull import Delivery
from pipelines.registry import load_pipeline
from pipelines.room import Room
from schemas.errors import RigflowError
from schemas.messages import CollectRequest, Done, JobRef, decode
from schemas.settings import Settings
from schemas.subjects import COLLECT, HEADER_CONTENT_TYPE, HEADER_NAME, HEADER_TYPE
from workers.failures import Failures
from workers.keepalive import fail, kept_alive
from workers.lease import Hop, Lease


class CollectStage:
    """Collects one job into a temporary folder; its files become messages, then its Done."""

    def __init__(self, broker: Broker, settings: Settings, failures: Failures) -> None:
        self._broker = broker
        self._settings = settings
        self._failures = failures
        self._room = Room(broker)

    async def handle(self, hop: Hop, delivery: Delivery) -> None:
        """Finish the job that one message asks for; settles it."""
        lease = Lease(delivery, hop, delivery.nbytes)
        job: JobRef | None = None
        async with kept_alive(lease, self._settings):
            try:
                request = await _request_of(delivery)
                job = request.job
                await self._failures.look_up(
                    lease
                )  # errors alone: it says nowhere that it begins, so its end is nobody's
                await self._collect(request)
            except (CollectedElsewhere, JobCancelled):
                pass  # another delivery of this message, or the publisher itself, was faster
            except Exception as error:
                await self._failed(lease, error, job)
            await lease.drop()

    async def _collect(self, request: CollectRequest) -> None:
        spec = await load_pipeline(self._broker, request.job.revision)
        record = await JobRecord.current(self._broker, request.job)
        if record is not None and record.manifest.thinned and not record.manifest.state.ended:
            raise Thinned(request.job)
        stem = re.sub(r"[^\w -]", "_", Path(request.name).stem, flags=re.ASCII)[:64]  # headers are ASCII
        with tempfile.TemporaryDirectory(prefix="rigflow-collect-") as folder:
            collector = Collector(self._broker, spec, deliver=self._deliver, room=self._room)
            await collector.open({request.job: Path(folder) / f"{stem or request.job.id}.{spec.name}"})
            try:
                await collector.wait(request.job.id)
            finally:
                await collector.close()

    async def _deliver(self, job: JobRef, files: list[Path]) -> None:
        """Publish a job's files as they are: a subscriber needs nothing of ours to use them."""
        for path in files:
            headers = {
                HEADER_TYPE: "file",
                HEADER_NAME: path.name,
                HEADER_CONTENT_TYPE: mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            }
            digest = await asyncio.to_thread(_digest_of, path)
            identity = f"{job.space}/{job.id}/{job.revision}/file/{path.name}/{digest}"
            await self._broker.publish(self._broker.names.results(job), path, identity, headers)

    async def _failed(self, lease: Lease, error: Exception, job: JobRef | None) -> None:
        """Whoever waits for the job's Done gets one, also when nobody could collect it."""
        failure = await fail(self._failures, lease, error, COLLECT, job)
        if failure is not None and job is not None:
            done = Done(job=job, segments=0, frames=0, lost=0, failures=(describe(failure),))
            await publish_done(self._broker, done, f"{lease.delivery.subject}/{lease.delivery.stream_seq}")
            with contextlib.suppress(JobCancelled):  # whoever did that has told
                await end(self._broker, None, done)
            await self._room.make()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _request_of(delivery: Delivery) -> CollectRequest:
    try:
        message, _ = decode(await delivery.load())
    except ValueError as error:
        raise RigflowError(str(error)) from error
    if not isinstance(message, CollectRequest):
        raise RigflowError(f"a {message.type} has no business in front of {COLLECT}")
    return message
