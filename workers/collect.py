"""The collect stage: finishes jobs for publishers that have only NATS, and publishes their files."""

import asyncio
import contextlib
import mimetypes
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engines.content import file_sha256
from engines.outputs.names import clean_stem
from engines.plugins import check_plugins
from engines.scratch import ScratchFolder
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.inventory import take_inventory
from pipelines.job_end import end_with_done
from pipelines.job_records import CollectedElsewhere, JobCancelled, JobRecord
from pipelines.jobs import ResultsEvicted, finish_cancel
from pipelines.known_revisions import KnownRevisions
from pipelines.reasons import describe
from pipelines.retention import Retention
from schemas.errors import RigflowError
from schemas.jobs import JobRef, Manifest
from schemas.messages import CollectRequest, decode
from schemas.results import Done, Failure
from schemas.subjects import COLLECT, HEADER_CONTENT_TYPE, HEADER_NAME, HEADER_TYPE
from workers.failures import Failures
from workers.first_task import check_queue
from workers.in_flight import InFlight

STEM_BYTES = 160  # of the 255 of a file's name; the name of the pipeline, at most 64, and the suffix follow


class CollectHandler:
    """Collects a job into a temporary folder, and publishes its files and its Done."""

    def __init__(self, broker: Broker, failures: Failures) -> None:
        self._broker = broker
        self._failures = failures
        self._retention = Retention(broker)
        self._revisions = KnownRevisions(broker)
        self._scratch: ScratchFolder | None = None  # with a folder for each job
        self._making = threading.Lock()

    def close(self) -> None:
        """Remove the temporary folder."""
        if self._scratch is not None:
            self._scratch.remove()

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """An empty folder for one job. Raises OSError."""
        folder = await asyncio.to_thread(self._new_folder)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        with self._making:
            self._scratch = self._scratch or ScratchFolder("collect")
        return Path(tempfile.mkdtemp(dir=self._scratch.path))

    async def run(self, message: InFlight) -> None:
        """Finish the job that one message asks for."""
        request = await _request_of(message)
        check_queue(message, request.job, self._broker.names)
        message.job = request.job
        await self._failures.look_up(message)  # counts errors only: collecting is not stored as begun
        try:
            await self._collect(request)
        except CollectedElsewhere:
            pass  # another delivery or the publisher did it
        except JobCancelled:
            await finish_cancel(self._broker, request.job, again=True)  # deletes what was delivered meanwhile

    async def on_failure(self, message: InFlight, failure: Failure) -> None:
        """Publish the Done of a job that cannot be collected: its subscribers wait for it."""
        job = failure.key.job
        if (await take_inventory(self._broker, Manifest(job=job, name=""))).done is not None:
            return  # it failed after its Done
        done = Done(job=job, segments=0, frames=0, lost=0, failures=(describe(failure),))
        with contextlib.suppress(JobCancelled):  # its subscribers have its Done already
            place = f"{message.delivery.subject}/{message.delivery.stream_seq}"
            await end_with_done(self._broker, None, done, place)
        await self._retention.free_space(job.tenant)

    async def _collect(self, request: CollectRequest) -> None:
        spec = await self._revisions.get(request.job.revision)
        check_plugins(spec)
        record = await JobRecord.current(self._broker, request.job)
        if record is None or record.manifest.job != request.job:
            raise RigflowError(f"job {request.job.id} is not known", "publish its media again")
        if record.manifest.results_evicted and (await take_inventory(self._broker, record.manifest)).done is None:
            raise ResultsEvicted(request.job)
        name = request.name.strip()  # as a header has it
        stem = clean_stem(name, STEM_BYTES) if name else request.job.id
        async with self._folder() as folder:
            collector = Collector(self._broker, spec, deliver=self._deliver, retention=self._retention)
            await collector.open({request.job: folder / f"{stem}.{spec.name}"})
            try:
                await collector.wait(request.job.id)
            finally:
                await collector.close()

    async def _deliver(self, job: JobRef, files: list[Path]) -> None:
        """Publish a job's files unchanged: a subscriber needs no rigflow to use them."""
        for path in files:
            headers = {
                HEADER_TYPE: "file",
                HEADER_NAME: path.name,
                HEADER_CONTENT_TYPE: mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            }
            digest = await asyncio.to_thread(file_sha256, path)
            identity = f"{job.tenant}/{job.id}/{job.revision}/file/{path.name}/{digest}"
            await self._broker.publish(self._broker.names.results(job), path, identity, headers)


async def _request_of(message: InFlight) -> CollectRequest:
    request, _ = decode(await message.delivery.load())
    if not isinstance(request, CollectRequest):
        raise RigflowError(f"a message of type {request.type} does not belong in the queue of stage {COLLECT}")
    return request
