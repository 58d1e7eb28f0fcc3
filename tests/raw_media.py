"""Raw media by NATS alone, as a program without rigflow publishes it, and what comes back."""

from collections.abc import Mapping
from typing import NamedTuple

import nats

from pipelines.broker import Broker
from pipelines.publish import Publisher
from schemas.jobs import Priority
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from schemas.results import Done, Result
from schemas.subjects import HEADER_JOB, HEADER_TYPE


class Received(NamedTuple):
    """What a job said: the first array of each part's result in order, the last file, and the end."""

    done: Done
    arrays: list[bytes]
    file: bytes


async def sent_raw(
    broker: Broker, spec: PipelineSpec, job: str, body: bytes, headers: Mapping[str, str] | None = None
) -> Received:
    """Publish the bytes of a media for a registered pipeline, and receive until its job is done."""
    client = await nats.connect(broker.settings.nats)
    subject = broker.names.results(Publisher(broker, spec, "main", Priority.INTERACTIVE).ref(job))
    results = await client.subscribe(subject)
    given = {HEADER_JOB: job, **(headers or {})}
    await client.jetstream().publish(f"rigflow.media.main.{spec.name}", body, headers=given)
    arrays: dict[tuple[int, int], bytes] = {}
    file, message = b"", None
    while not isinstance(message, Done):
        received = await results.next_msg(60)
        if received.headers[HEADER_TYPE] == "file":
            file = received.data
        if received.headers[HEADER_TYPE] not in ("part", "done"):
            continue
        message, buffers = decode(received.data)
        if isinstance(message, Result):
            arrays[message.meta.key.segment, message.meta.key.part] = bytes(buffers[0])
    await client.close()
    return Received(message, [arrays[place] for place in sorted(arrays)], file)
