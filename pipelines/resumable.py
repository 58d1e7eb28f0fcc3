"""Uploads that can be interrupted and continued by any process: their state is at the broker alone.

The bytes that came are chunks in the blob store, whose last one says how many there are. Each is stored only behind the
one that its sender knew as the last, so that two senders cannot mix their bytes. A sweep removes the chunks of an
upload that nothing is added to any more (`pipelines.sweep.AGE_S`).
"""

import hashlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from pipelines.blob_upload import (
    RECORD_BYTES,
    Chunks,
    begun_media,
    chunk_bytes_of,
    joined,
    media_space,
    remove_chunks,
    store_chunk,
)
from pipelines.broker import EXPECTED, WRONG_SEQUENCE, ApiError, Broker, Stored
from pipelines.client import Client
from pipelines.job import Job
from pipelines.job_records import find_manifest
from pipelines.message_store import fleet_full
from pipelines.queued import is_queued
from pipelines.raw_media import ReceivedMedia, source_of
from pipelines.registry import load_pipeline
from pipelines.upload_record import Upload
from pipelines.values import decoded
from schemas.declared import is_token
from schemas.errors import NotFound, RigflowError, StoreError, UsageError
from schemas.jobs import Priority
from schemas.subjects import HEADER_ID
from schemas.wire import Buffer


class UploadMoved(UsageError):
    """The upload has another number of bytes than its sender says."""


class TakenOver(UploadMoved):
    """Another sender added bytes meanwhile: what is there is its own."""


class ChecksumMismatch(UsageError):
    """Bytes that came do not have the checksum that their sender says; they are not kept."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request must have: an algorithm of hashlib, and its digest."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Arrived:
    """How many bytes of an upload are there, and the sequence of their last chunk (0: none)."""

    size: int
    sequence: int


class Uploads:
    """The resumable uploads of one tenant; `client` makes jobs of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._broker: Broker = client.broker

    @property
    def _bucket(self) -> str:
        return self._broker.names.uploads_of(self._client.tenant)

    async def create(
        self,
        revision: str,
        chosen: bool,
        size: int,
        job: str,
        priority: Priority,
        name: str,
        content_type: str,
        patience_s: float,
    ) -> Upload:
        """Begin an upload; with the id of a known one of the same size and pipeline it is that one.

        The pipeline may have been updated since; what the caller has `chosen` is one revision of it.

        Raises UploadMoved, NeverFits, FleetFull when there is no space for all of it for `patience_s`.
        """
        await self._broker.quotas.check(self._client.tenant)
        known = None
        with suppress(NotFound):
            known = await self.find(job)
        if known is not None:
            hint = "choose another id, or delete it"
            if known.size != size:
                raise UploadMoved(f"upload {job} has {known.size:,} bytes", hint)
            if known.revision != revision and (chosen or known.chosen or await self._is_other(known, revision)):
                raise UploadMoved(f"upload {job} is of another pipeline, or of other options of it", hint)
            return known
        async with media_space(self._broker, self._bucket, size, patience_s):
            pass
        upload = Upload(
            id=job or uuid.uuid4().hex[:20],
            size=size,
            chunks=uuid.uuid4().hex,
            revision=revision,
            chosen=chosen,
            priority=priority,
            name=name,
            content_type=content_type,
        )
        await self._write(upload)
        return upload

    async def _is_other(self, known: Upload, revision: str) -> bool:
        """Whether a revision is of another pipeline than that of an upload."""
        was, wanted = [await load_pipeline(self._broker, each) for each in (known.revision, revision)]
        return was.name != wanted.name

    async def find(self, identity: str) -> Upload:
        """An upload by its id. Raises NotFound."""
        known = is_token(identity)
        body = await self._broker.get(self._records, self._key(identity)) if known else None
        upload = None if body is None else decoded(Upload, body, f"the upload {identity}")
        if upload is None:
            raise NotFound(f"there is no upload {identity[:100]!a}", "begin it again")
        return upload

    async def arrived(self, upload: Upload) -> Arrived:
        """How much of it is there; all, once it is a job."""
        last = await self._broker.last(f"OBJ_{self._bucket}", self._subject(upload))
        if last is not None:
            size = _start_of(last) + len(last.body)
            if upload.unchecked is not None and size > upload.unchecked:
                return Arrived(upload.unchecked, 0)  # `append` removes the others first
            return Arrived(size, last.sequence)
        return Arrived(upload.size if upload.published else 0, 0)

    async def append(
        self,
        upload: Upload,
        at: Arrived,
        body: AsyncIterable[Buffer],
        patience_s: float,
        checksum: Checksum | None = None,
    ) -> Arrived:
        """Add bytes behind those that are there. What came of a body that ends with an error stays.

        With a `checksum` it stays only if it is whole. Raises UploadMoved when another sender adds to it or there are
        too many bytes, ChecksumMismatch, FleetFull, BrokerError.
        """
        if upload.unchecked is not None:
            at = await self._cut(upload, upload.unchecked)
        if checksum is None:
            if upload.unchecked is not None:
                await self._write(upload.model_copy(update={"unchecked": None}))
            return await self._added(upload, at, body, patience_s)
        await self._write(upload.model_copy(update={"unchecked": at.size}))
        hashed = hashlib.new(checksum.algorithm)
        try:
            came = await self._added(upload, at, _hashing(body, hashed), patience_s)
        except TakenOver:
            raise
        except RigflowError:
            await self._checked(upload, at)
            raise
        if hashed.digest() != checksum.digest:
            await self._checked(upload, at)
            what = f"the bytes that came do not have this {checksum.algorithm}, and are not kept"
            raise ChecksumMismatch(what, f"send them again behind byte {at.size}")
        await self._write(upload.model_copy(update={"unchecked": None}))
        return came

    async def _checked(self, upload: Upload, at: Arrived) -> None:
        """Remove what came behind `at`, so that there is nothing that was not compared with its checksum."""
        await self._cut(upload, at.size)
        await self._write(upload.model_copy(update={"unchecked": None}))

    async def _cut(self, upload: Upload, size: int) -> Arrived:
        """Remove what came behind so many bytes."""
        stream = f"OBJ_{self._bucket}"
        while (last := await self._broker.last(stream, self._subject(upload))) is not None:
            if _start_of(last) < size:
                return Arrived(_start_of(last) + len(last.body), last.sequence)
            await self._broker.delete_message(stream, last.sequence)
        return Arrived(0, 0)

    async def _added(self, upload: Upload, at: Arrived, body: AsyncIterable[Buffer], patience_s: float) -> Arrived:
        unique = uuid.uuid4().hex[:12]  # bytes that were removed and come again are no repeat of a message
        try:
            begun = begun_media(self._broker, self._bucket, at.size)
            with self._broker.waiting_for_fleet() as wait, begun as space:
                async with aclosing(joined(body, chunk_bytes_of(self._broker))) as chunks:
                    async for chunk in chunks:
                        if at.size + len(chunk) > upload.size:
                            raise UploadMoved(f"upload {upload.id} has {upload.size:,} bytes", "send no more")
                        headers = {HEADER_ID: f"{upload.chunks}/{unique}/{at.size}", EXPECTED: str(at.sequence)}
                        await space.extend(len(chunk) + RECORD_BYTES, patience_s)
                        sequence = await store_chunk(
                            self._broker, self._subject(upload), chunk, headers, patience_s, wait
                        )
                        space.stored(len(chunk) + RECORD_BYTES)
                        at = Arrived(at.size + len(chunk), sequence)
        except ApiError as error:
            if error.code == WRONG_SEQUENCE:
                raise TakenOver(f"another sender adds to upload {upload.id}", "ask how much is there") from error
            if error.full:
                raise fleet_full("the store of media") from error
            raise
        return at

    async def complete(self, upload: Upload, patience_s: float) -> Job:
        """Make the job of an upload all of whose bytes are there; called again it is the same job. Raises as `submit`.

        If this fails, the bytes stay, and it may be called again.
        """
        known = await find_manifest(self._broker, upload.id, self._client.tenant)
        if known is not None and (upload.published or await is_queued(self._broker, known.job)):
            await self._write(upload.model_copy(update={"published": True}))
            return await self._client.find(upload.id)
        spec = await load_pipeline(self._broker, upload.revision)
        media = await self._media(upload)
        ref = self._client.ref(spec, upload.id, upload.priority)
        job = await self._client.begin(ref, media, upload.name, upload.content_type, patience_s, upload.chosen)
        await self._write(upload.model_copy(update={"published": True}))
        return job

    async def delete(self, upload: Upload) -> None:
        """Forget an upload and what came of it; a job that it became stays."""
        if await find_manifest(self._broker, upload.id, self._client.tenant) is None:
            await remove_chunks(self._broker, self._bucket, upload.chunks)
        await self._broker.delete_key(self._records, self._key(upload.id))

    async def _write(self, upload: Upload) -> None:
        await self._broker.put(self._records, self._key(upload.id), upload.model_dump_json().encode())

    async def _media(self, upload: Upload) -> ReceivedMedia:
        """The bytes of an upload, read once for their digest: any process may have stored them."""
        hashed, size = hashlib.sha256(), 0
        async for chunk in self._broker.read(f"OBJ_{self._bucket}", self._subject(upload)):
            hashed.update(chunk.body)
            size += len(chunk.body)
        if size != upload.size:
            raise StoreError(f"{size:,} bytes of upload {upload.id} are there, of {upload.size:,}", "begin it again")
        chunks = Chunks(upload.chunks, size, chunk_bytes_of(self._broker), hashed.digest())
        return ReceivedMedia(source_of(hashed.digest()), size, chunks=chunks, bucket=self._bucket, shared=True)

    @property
    def _records(self) -> str:
        return self._broker.names.jobs_of(self._client.tenant)

    def _key(self, identity: str) -> str:
        return f"upload.{self._client.tenant}.{identity}"

    def _subject(self, upload: Upload) -> str:
        return f"$O.{self._bucket}.C.{upload.chunks}"


def _start_of(chunk: Stored) -> int:
    """Where in its upload a chunk begins. Raises StoreError for one that another program stored."""
    start = chunk.headers.get(HEADER_ID, "").rpartition("/")[2]
    if not (start.isascii() and start.isdigit()):
        raise StoreError("a chunk of the upload is none of ours", "delete the upload, and begin it again")
    return int(start)


async def _hashing(body: AsyncIterable[Buffer], hashed: "hashlib._Hash") -> AsyncIterator[Buffer]:
    """A body as it comes, whose bytes are hashed."""
    async for piece in body:
        hashed.update(piece)
        yield piece
