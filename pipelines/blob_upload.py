"""Writes objects into the object stores: whole ones, files, and streams whose bytes come once.

No object is in memory as a whole unless it was given so: it is sent in chunks.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.blobs import info_subject, stored_digest
from pipelines.jetstream import ApiError
from pipelines.message_store import MessageStore, Reservation, fleet_full
from schemas.errors import BrokerError
from schemas.subjects import HEADER_ID
from schemas.wire import Buffer

CHUNK_BYTES = 1 << 20  # or what the server takes in one message, if that is less
MEDIA_SHARE = 0.75  # of a store for media that come; workers need the rest for what they make of media
RECORD_BYTES = 512  # most that the store needs for a chunk beside its bytes: subject, headers, framing
STRAGGLER_S = 0.1  # a chunk in flight may be stored after the first purge
REMOVE_S = 5.0  # longest wait for the removal of a partial upload
GIVE_WAY_S = 0.5  # in a full store an upload is removed and tried again after a random time up to this
LONGEST_WAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks that are stored and are no object before `describe_blob`: their subject token, size and SHA-256."""

    id: str
    size: int
    chunk_bytes: int
    sha256: bytes


async def put_blob(
    broker: MessageStore, bucket: str, body: Buffer | Path, name: str = "", metadata: Mapping[str, str] | None = None
) -> str:
    """Store an object, the content of a file if `body` is a path, under a unique name unless one is given; its name.

    Waits before the first chunk until the store has space for the entire object. If other processes fill that space
    meanwhile, one upload is removed and starts again later, so that two partial uploads never wait for each other. The
    chunks of an upload that fails or is cancelled are removed. Raises NeverFits, BrokerError, OSError when the file
    cannot be read.
    """
    size = body.stat().st_size if isinstance(body, Path) else len(body)
    with broker.waiting_for_fleet() as wait:
        for attempt in itertools.count(1):
            async with broker.uploads.reserve(f"OBJ_{bucket}", stored_bytes(broker, size)) as space:
                chunks_id = broker.connection.unique()
                try:
                    chunks = await _send_chunks(broker, bucket, chunks_id, _cut(body, chunk_bytes_of(broker)), space)
                    return await _describe(broker, bucket, chunks, name, metadata)
                except BaseException as error:
                    await remove_chunks(broker, bucket, chunks_id)
                    if not (isinstance(error, ApiError) and error.full):
                        raise
            wait()
            await asyncio.sleep(random.uniform(0.0, min(GIVE_WAY_S * 2**attempt, LONGEST_WAY_S)))
    raise AssertionError


async def send_stream(
    broker: MessageStore, bucket: str, body: AsyncIterable[Buffer], size: int | None, patience_s: float
) -> Chunks:
    """Store bytes as they come, a chunk at a time; `size` is their number, or the most they can be, if it is known.

    While the store is full it takes nothing from `body`, for at most `patience_s`: bytes that came cannot be taken
    again, so that an upload that gives way to another fails. Media leave a part of the store to what workers make of
    them. Chunks of an upload that fails or is cancelled are removed. Raises FleetFull, NeverFits, BrokerError, and what
    `body` raises.
    """
    chunks_id = broker.connection.unique()
    try:
        async with media_space(broker, bucket, size or 0, patience_s) as space:
            chunks = joined(body, chunk_bytes_of(broker))
            return await _send_chunks(broker, bucket, chunks_id, chunks, space, patience_s)
    except BaseException as error:
        await remove_chunks(broker, bucket, chunks_id)
        if isinstance(error, ApiError) and error.full:
            raise fleet_full(f"the broker's store {bucket}") from error
        raise


def media_space(
    broker: MessageStore, bucket: str, size: int, patience_s: float
) -> contextlib.AbstractAsyncContextManager[Reservation]:
    """Space for media of a size, which leave a part of their store free. Raises as `Uploads.reserve`."""
    nbytes = stored_bytes(broker, size) if size else 0
    return broker.uploads.reserve(f"OBJ_{bucket}", nbytes, patience_s, MEDIA_SHARE)


@contextlib.contextmanager
def begun_media(broker: MessageStore, bucket: str, nbytes: int) -> Iterator[Reservation]:
    """Space for more of media of which so many bytes are stored: none yet, see `Reservation.extend`."""
    space = Reservation(broker.uploads, f"OBJ_{bucket}", MEDIA_SHARE, nbytes)
    try:
        yield space
    finally:
        space.end()


async def describe_blob(
    broker: MessageStore, bucket: str, chunks: Chunks, name: str, metadata: Mapping[str, str]
) -> None:
    """Make chunks the object of this name. Raises FleetFull; the chunks stay then."""
    try:
        await _describe(broker, bucket, chunks, name, metadata)
    except ApiError as error:
        if error.full:
            raise fleet_full(f"the broker's store {bucket}") from error
        raise


def chunk_bytes_of(broker: MessageStore) -> int:
    """Bytes of a chunk of a new object."""
    return min(CHUNK_BYTES, broker.max_body)


def stored_bytes(broker: MessageStore, size: int) -> int:
    """What an object of this size takes in its store."""
    return size + RECORD_BYTES * (2 + size // chunk_bytes_of(broker))


async def _describe(
    broker: MessageStore, bucket: str, chunks: Chunks, name: str, metadata: Mapping[str, str] | None
) -> str:
    description = {
        "name": name or chunks.id,
        "bucket": bucket,
        "nuid": chunks.id,
        "size": chunks.size,
        "chunks": -(-chunks.size // chunks.chunk_bytes),
        "digest": stored_digest(chunks.sha256),
        "metadata": dict(metadata or {}),
        "options": {"max_chunk_size": chunks.chunk_bytes},
    }
    subject, described = info_subject(bucket, name or chunks.id), json.dumps(description).encode()
    await broker.store(subject, described, {HEADER_ID: f"{chunks.id}/info"}, until_full=True)
    return name or chunks.id


async def _send_chunks(
    broker: MessageStore,
    bucket: str,
    chunks_id: str,
    chunks: AsyncGenerator[bytes, None],
    space: Reservation,
    patience_s: float = GIVE_WAY_S,
) -> Chunks:
    """Store chunks in space that is reserved, and in more if need be.

    Raises FleetFull, or ApiError when other processes fill the store, and it stays full for `patience_s`.
    """
    hashed, size, number = hashlib.sha256(), 0, 0
    with broker.waiting_for_fleet() as wait:
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                headers = {HEADER_ID: f"{chunks_id}/{number}"}
                if space.left < len(chunk):
                    await space.extend(len(chunk) + RECORD_BYTES, patience_s)
                await store_chunk(broker, f"$O.{bucket}.C.{chunks_id}", chunk, headers, patience_s, wait)
                space.stored(len(chunk) + RECORD_BYTES)
                hashed.update(chunk)
                size += len(chunk)
                number += 1
    return Chunks(chunks_id, size, chunk_bytes_of(broker), hashed.digest())


async def store_chunk(
    broker: MessageStore,
    subject: str,
    chunk: bytes,
    headers: Mapping[str, str],
    patience_s: float,
    wait: Callable[[], None],
) -> int:
    """Store one chunk; its sequence. `wait` is called while the store is full. Raises ApiError after `patience_s`."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            acked, _ = await broker.store(subject, chunk, headers, until_full=True)
            return acked.sequence
        except ApiError as error:
            if not error.full or time.monotonic() >= until_s:
                raise
        wait()
        await asyncio.sleep(random.uniform(0.0, GIVE_WAY_S))  # another upload may be removed first


async def joined(body: AsyncIterable[Buffer], chunk_bytes: int) -> AsyncGenerator[bytes, None]:
    """What comes in pieces of any size, in chunks of the same size."""
    waiting, left = list[Buffer](), chunk_bytes
    async for piece in body:
        view = memoryview(piece)
        while len(view):
            taken = view[:left]
            waiting.append(taken)
            left -= len(taken)
            view = view[len(taken) :]
            if not left:
                yield b"".join(waiting)
                waiting, left = [], chunk_bytes
    if waiting:
        yield b"".join(waiting)


async def _cut(body: Buffer | Path, chunk_bytes: int) -> AsyncGenerator[bytes, None]:
    """A body in chunks; a file is read beside the event loop."""
    if not isinstance(body, Path):
        view = memoryview(body)
        for start in range(0, len(body), chunk_bytes):
            yield bytes(view[start : start + chunk_bytes])
        return
    with await asyncio.to_thread(body.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, chunk_bytes):
            yield chunk


async def remove_chunks(broker: MessageStore, bucket: str, chunks_id: str) -> None:
    """Remove a partial upload. If the broker is away, the next sweep removes it (`pipelines.sweep`)."""
    with contextlib.suppress(TimeoutError, BrokerError):
        async with asyncio.timeout(REMOVE_S if broker.connection.connected else 0.0):
            for pause_s in (0.0, STRAGGLER_S):
                await asyncio.sleep(pause_s)
                await broker.purge(f"OBJ_{bucket}", f"$O.{bucket}.C.{chunks_id}")
