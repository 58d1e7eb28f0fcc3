"""Claim checks: what is too large for a message, in an object store that every NATS client can read.

nats-py's own reader takes 0.8 s for 16 MB; this one reads chunks in batches by direct get, without a consumer.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.broker import Broker, Stored
from pipelines.jetstream import pause
from schemas.errors import StoreError
from schemas.subjects import HEADER_BLOB, HEADER_ID

CHUNK_BYTES = 1 << 20
LOOKS = 8  # for chunks that are not all there, over 2 s
ROLLUP = {"Nats-Rollup": "sub"}  # a newer description of an object replaces the older one


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What the store knows of an object; `chunks_id` is the subject token of its chunks."""

    name: str
    chunks_id: str
    size: int
    digest: str
    metadata: Mapping[str, str]


async def put_blob(
    broker: Broker, bucket: str, body: bytes, name: str = "", metadata: Mapping[str, str] | None = None
) -> str:
    """Store an object, under a unique name unless one is given; its name. Waits while the store is full."""
    chunks_id = broker.connection.unique()
    name = name or chunks_id
    view = memoryview(body)
    starts = range(0, len(body), CHUNK_BYTES)
    for number, start in enumerate(starts):
        chunk = bytes(view[start : start + CHUNK_BYTES])
        await broker.store(f"$O.{bucket}.C.{chunks_id}", chunk, {HEADER_ID: f"{chunks_id}/{number}"})
    info = {
        "name": name,
        "bucket": bucket,
        "nuid": chunks_id,
        "size": len(body),
        "chunks": len(starts),
        "digest": digest_of(body),
        "metadata": dict(metadata or {}),
        "options": {"max_chunk_size": CHUNK_BYTES},
    }
    headers = {HEADER_ID: f"{chunks_id}/info", **ROLLUP}
    await broker.store(_info_subject(bucket, name), json.dumps(info).encode(), headers)
    return name


async def blob_info(broker: Broker, bucket: str, name: str) -> BlobInfo | None:
    """What the store knows of an object; None when it is not there."""
    stored = await broker.last(f"OBJ_{bucket}", _info_subject(bucket, name))
    if stored is None:
        return None
    info = json.loads(stored.body)
    if info.get("deleted"):
        return None
    return BlobInfo(name, info["nuid"], info["size"], info["digest"], info.get("metadata") or {})


async def get_blob(broker: Broker, bucket: str, name: str) -> bytes:
    """An object's bytes, held against their digest. Raises StoreError when it is gone or damaged."""
    info = await blob_info(broker, bucket, name)
    if info is None:
        raise StoreError(f"object {name} is not in store {bucket}", "it grew too old, or was never published")
    for attempt in range(1, LOOKS + 1):  # in a cluster the copy that is read may be a moment behind
        chunks = [chunk.body async for chunk in broker.read(f"OBJ_{bucket}", f"$O.{bucket}.C.{info.chunks_id}")]
        body = b"".join(chunks)
        if len(body) >= info.size:
            break
        await pause(attempt)
    if digest_of(body) != info.digest:
        raise StoreError(f"object {name} of store {bucket} is damaged", "publish it again")
    return body


async def delete_blob(broker: Broker, bucket: str, name: str) -> None:
    """Delete an object; nothing happens when it is gone."""
    info = await blob_info(broker, bucket, name)
    if info is not None:
        await broker.purge(f"OBJ_{bucket}", _info_subject(bucket, name))
        await broker.purge(f"OBJ_{bucket}", f"$O.{bucket}.C.{info.chunks_id}")


async def load(broker: Broker, stored: Stored) -> bytes:
    """The body of a stored message; a claim check is fetched. Raises StoreError when it is gone."""
    blob = stored.headers.get(HEADER_BLOB, "")
    return await get_blob(broker, broker.names.blobs, blob) if blob else stored.body


def _info_subject(bucket: str, name: str) -> str:
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def digest_of(body: bytes) -> str:
    """A body's digest, as the description of an object has it."""
    return "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
