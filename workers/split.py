"""The split stage: raw media from publishers that have only NATS -> segments, as `publish` would have sent them."""

import re

from pipelines.broker import Broker
from pipelines.pull import Delivery
from pipelines.registry import load_pipeline

from engines.media.source import media_kind
from pipelines.publish import Publisher
from schemas.errors import Disposition, RigflowError, UsageError
from schemas.messages import CollectRequest, Failure, Item, JobRef, Key, Lane
from schemas.pipeline import TOKEN, PipelineSpec
from schemas.settings import Settings
from schemas.subjects import COLLECT, HEADER_JOB, HEADER_LANE, HEADER_NAME, HEADER_TYPE
from workers.keepalive import kept_alive
from workers.lease import Hop, Lease


class SplitStage:
    """Takes raw media, cuts it, and asks a collector to finish the job for the publisher."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings

    async def handle(self, hop: Hop, delivery: Delivery) -> None:
        """Split one message; settles it."""
        lease = Lease(delivery, hop, delivery.nbytes)
        async with kept_alive(lease, self._settings):
            try:
                await self._split(hop, delivery)
            except RigflowError as error:
                if error.disposition is Disposition.REJECT:
                    await lease.terminate(str(error))
                else:
                    lease.spoil(1.0)
            await lease.drop()

    async def _split(self, hop: Hop, delivery: Delivery) -> None:
        spec = await load_pipeline(self._broker, hop.pipeline)
        publisher = Publisher(self._broker, spec, self._space_of(delivery), self._lane_of(delivery))
        job = publisher.ref(self._job_of(delivery))
        request = CollectRequest(job=job).encode()
        subject = self._broker.names.work(spec.name, COLLECT, job.lane)
        await self._broker.publish(subject, request, Key(job=job, segment=0).message_id(COLLECT))
        body = await delivery.load()
        name = delivery.headers.get(HEADER_NAME, job.id)
        try:
            await self._publish(publisher, spec, job, body, name)
        except RigflowError as error:
            if error.disposition is Disposition.REJECT:
                await self._tell(job, error)
            raise

    async def _publish(
        self, publisher: Publisher, spec: PipelineSpec, job: JobRef, body: memoryview | bytes, name: str
    ) -> None:
        kind = media_kind(body)
        if kind not in spec.media:
            raise UsageError(f"pipeline {spec.name} takes {' and '.join(spec.media)}, this is {kind}")
        if kind == "image":
            await publisher.send_images(Key(job=job, segment=0, final=True), [Item(name=name)], [body])
        else:
            await publisher.publish_video(job, body, name)

    async def _tell(self, job: JobRef, error: RigflowError) -> None:
        """The whole job failed: say so where its results would be."""
        key = Key(job=job, segment=-1, final=True)
        failure = Failure(key=key, stage="split", whole=True, error=str(error))
        subject = self._broker.names.results(job)
        await self._broker.publish(subject, failure.encode(), key.message_id("failure-split"), {HEADER_TYPE: "failure"})

    def _space_of(self, delivery: Delivery) -> str:
        return delivery.subject.split(".")[-2]

    def _lane_of(self, delivery: Delivery) -> Lane:
        given = delivery.headers.get(HEADER_LANE, Lane.INTERACTIVE.value)
        return Lane.BULK if given == Lane.BULK.value else Lane.INTERACTIVE

    def _job_of(self, delivery: Delivery) -> str:
        """The publisher's own id, or one made of the message's place in the stream."""
        given = delivery.headers.get(HEADER_JOB, "")
        return given if re.match(TOKEN, given) else f"media-{delivery.stream_seq}"
