"""The split stage: raw media from publishers that have only NATS -> segments, as `publish` would have sent them."""

import re
from collections.abc import Awaitable, Callable, Sequence

from engines.media.source import media_kind
from pipelines.broker import Broker
from pipelines.jobs import JobCancelled, JobRecord
from pipelines.publish import Publisher
from pipelines.pull import Delivery
from pipelines.registry import load_pipeline
from schemas.messages import CollectRequest, Failure, Lane
from schemas.pipeline import TOKEN, PipelineSpec
from schemas.subjects import COLLECT, HEADER_JOB, HEADER_LANE, HEADER_NAME
from workers.failures import Failures
from workers.in_flight import InFlight

Begin = Callable[[Sequence[InFlight]], Awaitable[None]]


class SplitStage:
    """Takes raw media, asks a collector to finish the job for the publisher, and cuts the media."""

    def __init__(self, broker: Broker, failures: Failures, begin: Begin) -> None:
        """`begin` stores that work on a message begins: media may crash the process that reads it."""
        self._broker = broker
        self._failures = failures
        self._begin = begin

    async def run(self, message: InFlight) -> None:
        """Split one message."""
        delivery, pipeline = message.delivery, message.queue.pipeline
        spec = await load_pipeline(self._broker, pipeline)
        publisher = Publisher(self._broker, spec, _space_of(delivery), _lane_of(delivery), hosted=True)
        message.job = publisher.ref(_id_of(delivery))
        name = _name_of(delivery) or message.job.id
        try:
            record = await publisher.begin(message.job, name, again=delivery.deliveries == 1)
            message.job = record.manifest.job
            if record.manifest.state.ended:
                return  # sent twice is done once
            await self._failures.look_up(message)
            await self._begin([message])
            await record.change(hosted=True)  # writes it: a request to collect a job that is not known is refused
            await self._ask_for_collect(CollectRequest(job=message.job, name=name), delivery)
            await _publish(publisher, spec, record, await delivery.load())
        except JobCancelled:
            pass  # its subscribers have its Done already

    async def on_failure(self, message: InFlight, failure: Failure) -> None:
        """The collector of the job ends it."""

    async def _ask_for_collect(self, request: CollectRequest, delivery: Delivery) -> None:
        """One request for each message of media: sent again (by a retry, say), it is collected again."""
        subject = self._broker.names.work(request.job.pipeline, COLLECT, request.job.lane)
        identity = f"{request.job.identity}/{delivery.stream_seq}/{COLLECT}"
        await self._broker.publish(subject, request.encode(), identity)


async def _publish(publisher: Publisher, spec: PipelineSpec, record: JobRecord, body: bytes) -> None:
    job, name = record.manifest.job, record.manifest.name
    kind = media_kind(body)
    spec.check_takes(kind)
    if kind == "image":
        await publisher.publish_image(job, body, name, record)
    else:
        await publisher.publish_video(job, body, name, record)


def _space_of(delivery: Delivery) -> str:
    return delivery.subject.split(".")[-2]


def _lane_of(delivery: Delivery) -> Lane:
    given = delivery.headers.get(HEADER_LANE, Lane.INTERACTIVE.value)
    return Lane.BULK if given == Lane.BULK.value else Lane.INTERACTIVE


def _name_of(delivery: Delivery) -> str:
    """The file's name as its publisher gave it; headers are bytes, and need not be text."""
    given = delivery.headers.get(HEADER_NAME, "")
    return given.encode(errors="surrogateescape").decode(errors="replace")


def _id_of(delivery: Delivery) -> str:
    """The publisher's own id, or one made of the message's place in the stream."""
    given = delivery.headers.get(HEADER_JOB, "")
    return given if re.match(TOKEN, given) else f"media-{delivery.stream_seq}"
