"""The collect stage: finishes jobs for publishers that have only NATS, and publishes their files."""

import asyncio
import mimetypes
import tempfile
from pathlib import Path

from pipelines.broker import Broker
from pipelines.pull import Delivery
from pipelines.registry import load_pipeline

from pipelines.collect import Collector
from schemas.errors import RigflowError
from schemas.messages import CollectRequest, JobRef, decode
from schemas.settings import Settings
from schemas.subjects import HEADER_CONTENT_TYPE, HEADER_NAME, HEADER_TYPE
from workers.keepalive import kept_alive
from workers.lease import Hop, Lease


class CollectStage:
    """Collects one job into a temporary folder; its files become messages, then its Done."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings

    async def handle(self, hop: Hop, delivery: Delivery) -> None:
        """Finish the job that one message asks for; settles it."""
        lease = Lease(delivery, hop, delivery.nbytes)
        async with kept_alive(lease, self._settings):
            message, _ = decode(await delivery.load())
            assert isinstance(message, CollectRequest)
            try:
                await self._collect(message.job)
            except RigflowError as error:
                lease.spoil(1.0)
                if delivery.deliveries >= self._settings.max_deliver:
                    await lease.terminate(str(error))
            await lease.drop()

    async def _collect(self, job: JobRef) -> None:
        spec = await load_pipeline(self._broker, job.revision)
        with tempfile.TemporaryDirectory(prefix="rigflow-collect-") as folder:
            collector = Collector(self._broker, spec, deliver=self._deliver)
            await collector.open({job: Path(folder) / job.id})
            try:
                await collector.wait(job.id)
            finally:
                await collector.close()

    async def _deliver(self, job: JobRef, files: list[Path]) -> None:
        """Publish a job's files as they are: a subscriber needs nothing of ours to use them."""
        for number, path in enumerate(files):
            body = await asyncio.to_thread(path.read_bytes)
            headers = {
                HEADER_TYPE: "file",
                HEADER_NAME: path.name,
                HEADER_CONTENT_TYPE: mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            }
            identity = f"{job.space}/{job.id}/{job.revision}/file-{number}"
            await self._broker.publish(self._broker.names.results(job), body, identity, headers)
