"""Sends the bytes of a media to the stage that splits it: small ones in a message, large ones through the blob store.

What is large is stored chunk by chunk as it comes, and is never in memory as a whole. From the moment that all bytes
are there, the job is published whatever becomes of the caller; before, nothing stays of an upload that ends.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass

from pipelines.blob_upload import Chunks, describe_blob, remove_chunks, send_stream
from pipelines.blobs import discard_claims
from pipelines.broker import ApiError, Broker
from pipelines.claims import SUBJECT, claim_name
from pipelines.jetstream import pause
from pipelines.message_store import fleet_full
from pipelines.quotas import TenantFull
from pipelines.tracing import traced
from schemas.errors import MediaError
from schemas.jobs import Manifest
from schemas.subjects import (
    HEADER_BLOB,
    HEADER_CONTENT_TYPE,
    HEADER_ID,
    HEADER_JOB,
    HEADER_NAME,
    HEADER_REVISION,
)
from schemas.wire import Buffer

UNKNOWN_BYTES = 1 << 20  # media of unknown size that has more goes through the blob store


@dataclass(frozen=True, slots=True)
class ReceivedMedia:
    """All bytes of a media: in `body`, or in `chunks` of the object store `bucket`. `source` identifies them.

    `shared`: another process may make a job of the same chunks, so that a sweep removes them if no message has them.
    """

    source: str
    size: int
    body: bytes = b""
    chunks: Chunks | None = None
    bucket: str = ""
    shared: bool = False


async def receive(
    broker: Broker,
    bucket: str,
    source: Buffer | AsyncIterable[Buffer],
    size: int | None,
    most_bytes: int,
    patience_s: float,
    at_most: int | None = None,
) -> ReceivedMedia:
    """Take all bytes of a media; `size` is their number if it is known, `at_most` the most that they can be.

    A stream of more than `most_bytes` is stored, in the object store `bucket`.

    Raises FleetFull when the store of media stays full for `patience_s`, NeverFits, MediaError when their number is
    another than `size`, BrokerError, and what `source` raises.
    """
    if not isinstance(source, AsyncIterable):
        size = len(source)
        if size <= broker.max_body:
            return _in_memory(bytes(source))
        return await _in_store(broker, bucket, _once(source), size, patience_s)
    given = _counted(aiter(source), size)
    if size is not None and size > most_bytes:  # nothing is taken before there is room for it
        return await _in_store(broker, bucket, given, size, patience_s)
    first, total = list[Buffer](), 0
    async for piece in given:
        first.append(piece)
        total += len(piece)
        if total > most_bytes:
            bound = at_most if size is None else size
            return await _in_store(broker, bucket, _chained(first, given), bound, patience_s)
    return _in_memory(b"".join(first))


def _in_memory(body: bytes) -> ReceivedMedia:
    if not body:
        raise MediaError("there are no bytes", "send a media")
    return ReceivedMedia(source_of(hashlib.sha256(body).digest()), len(body), body)


async def _in_store(
    broker: Broker, bucket: str, source: AsyncIterable[Buffer], size: int | None, patience_s: float
) -> ReceivedMedia:
    chunks = await send_stream(broker, bucket, source, size, patience_s)
    return ReceivedMedia(source_of(chunks.sha256), chunks.size, chunks=chunks, bucket=bucket)


def source_of(sha256: bytes) -> str:
    """The identity of media with this SHA-256."""
    return f"sha256:{sha256.hex()}"


async def _once(body: Buffer) -> AsyncIterator[Buffer]:
    yield body


async def _chained(first: list[Buffer], rest: AsyncIterable[Buffer]) -> AsyncIterator[Buffer]:
    first.reverse()
    while first:
        yield first.pop()
    async for piece in rest:
        yield piece


async def _counted(source: AsyncIterator[Buffer], size: int | None) -> AsyncIterator[Buffer]:
    """The same pieces. Raises MediaError at the end when they do not have the size."""
    total = 0
    async for piece in source:
        total += len(piece)
        if size is not None and total > size:
            break
        yield piece
    if size is not None and total != size:
        raise MediaError(f"{total:,} bytes came of {size:,}", "send all of it, or do not say a size")


async def forget(broker: Broker, media: ReceivedMedia) -> None:
    """Remove what was stored of media that is not published."""
    if media.chunks is not None and not media.shared:
        await remove_chunks(broker, media.bucket, media.chunks.id)


async def publish_media(
    broker: Broker, manifest: Manifest, media: ReceivedMedia, content_type: str, patience_s: float
) -> None:
    """Publish the message that makes media a job; once for each generation of the job and content.

    Raises FleetFull when the queue of media stays full for `patience_s`, Gone when the pipeline has none, BrokerError;
    nothing stays then.
    """
    job = manifest.job
    subject = broker.names.media(job.tenant, job.pipeline, job.priority)
    message_id = f"{job.identity}/media/{media.source}"
    headers = {HEADER_ID: message_id, HEADER_JOB: job.id, HEADER_REVISION: job.revision}
    headers |= {HEADER_NAME: manifest.name}
    headers |= {HEADER_CONTENT_TYPE: content_type} if content_type else {}
    with traced(broker.tracer, "publish", manifest) as place:
        await _publish(broker, subject, media, headers | place, patience_s)


async def _publish(
    broker: Broker, subject: str, media: ReceivedMedia, headers: Mapping[str, str], patience_s: float
) -> None:
    message_id = headers[HEADER_ID]
    if media.chunks is None:
        await _store(broker, subject, media.body, headers, patience_s)
        return
    blob = claim_name(subject, message_id, media.chunks.id)
    new = False
    try:
        await describe_blob(broker, media.bucket, media.chunks, blob, {SUBJECT: subject})
        new, attempts = await _store(
            broker, subject, str(media.size).encode(), {**headers, HEADER_BLOB: blob}, patience_s
        )
        new = new or attempts > 1  # an attempt whose answer was lost may have stored it
    except asyncio.CancelledError:
        new = True  # the message may be stored; if not, a sweep removes the object
        raise
    finally:
        if not new and not media.shared:
            await discard_claims(broker, media.bucket, [blob])
            await forget(broker, media)


async def _store(
    broker: Broker, subject: str, body: bytes, headers: Mapping[str, str], patience_s: float
) -> tuple[bool, int]:
    """Store a message: whether it is new, and how often it was sent. Waits while its stream is full.

    Raises FleetFull, BrokerError.
    """
    until_s, attempt = time.monotonic() + patience_s, 0
    while True:
        try:
            acked, attempts = await broker.store(subject, body, headers, until_full=True)
            return acked.new, attempts
        except ApiError as error:
            if not error.full:
                raise
            if time.monotonic() >= until_s:
                if tenant := broker.names.listed_tenant(subject):
                    raise TenantFull(tenant, broker.tenants[tenant]) from error
                raise fleet_full("the queue of media") from error
        attempt += 1
        await pause(attempt)
