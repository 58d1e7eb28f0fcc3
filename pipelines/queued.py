"""Finds and deletes the queued messages of one job. Jobs of a pipeline share its queues."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pipelines.blobs import discard_claims
from pipelines.broker import Broker, Stored
from pipelines.claims import claim_of
from schemas.jobs import JobRef
from schemas.subjects import COLLECT, HEADER_ID, HEADER_JOB, made_id

AT_ONCE = 32


async def delete_queued(broker: Broker, job: JobRef) -> int:
    """Delete all messages of a job, of any generation, in front of its pipeline's stages; how many there were.

    It reads all messages of the queues of the job's priority. Messages that workers have in flight are deleted too.
    """
    found = [(stream, stored) async for stream, stored in _queued(broker, job)]
    for first in range(0, len(found), AT_ONCE):
        some = found[first : first + AT_ONCE]
        await asyncio.gather(*(broker.delete_message(stream, stored.sequence) for stream, stored in some))
    claims = [claim_of(stored.subject, stored.headers) for _, stored in found]
    await discard_claims(broker, broker.names.blobs_of(job.tenant), claims)
    return len(found)


async def is_queued(broker: Broker, job: JobRef) -> bool:
    """Whether a message of a job, of any generation, waits in front of a stage or is in flight."""
    async with aclosing(_queued(broker, job)) as found:
        async for _ in found:
            return True
    return False


async def is_idle(broker: Broker, pipeline: str) -> bool:
    """Whether no stage of a pipeline has a message that brings results, queued or in flight: collecting brings none.

    Streams are read one after the other. A message may move meanwhile from a stream that is not read yet to one that
    was read. So all are read twice, and no new message may have come in between.
    """
    subject = f"{broker.names.prefix}.work.{pipeline}.*.*"
    looks, left_out = [], broker.names.work_stream(pipeline, COLLECT)
    for _ in range(2):
        found = (await broker.api("STREAM.LIST", {"subject": subject}))["streams"] or []
        states = [stream["state"] for stream in found if stream["config"]["name"] != left_out]
        if any(state["messages"] for state in states):
            return False
        looks.append([state["last_seq"] for state in states])
    return looks[0] == looks[1]


async def _queued(broker: Broker, job: JobRef) -> AsyncGenerator[tuple[str, Stored], None]:
    """The queued messages of a job without their bodies, and the stream of each."""
    names = broker.names
    work = names.work(job.pipeline, "*", job.priority, job.tenant)
    streams = (await broker.api("STREAM.NAMES", {"subject": work}))["streams"] or []
    for stream in streams:
        async for stored in broker.read(stream, work):
            if stored.headers.get(HEADER_ID, "").startswith(job.id_prefix):
                yield stream, _bodiless(stored)
    stream = names.media_stream(job.pipeline, job.tenant)
    async for stored in broker.read(stream, names.media(job.tenant, job.pipeline, job.priority)):
        if job.id in (stored.headers.get(HEADER_JOB), made_id(job.pipeline, stored.sequence)):
            yield stream, _bodiless(stored)


def _bodiless(stored: Stored) -> Stored:
    return Stored(stored.subject, stored.sequence, stored.headers, b"")
