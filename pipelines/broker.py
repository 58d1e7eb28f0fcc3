"""The broker for the rest of rigflow: publish with back-pressure, key-value buckets, readers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.answers import headers_bytes
from pipelines.blob_upload import put_blob, stored_bytes
from pipelines.blobs import discard_claims
from pipelines.claims import SUBJECT, claim_name
from pipelines.connection import Connection, Forbidden
from pipelines.jetstream import ApiError, Stored, seconds_of
from pipelines.message_store import HEADERS_BYTES, MessageStore
from pipelines.otlp import OtlpExporter, open_exporter
from pipelines.quotas import Quotas, StorageFull
from pipelines.values import decoded
from schemas.errors import BrokerError, UsageError
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_ID
from schemas.tenants import LISTED, TenantList
from schemas.wire import Buffer, Pieces

__all__ = ["DELETED", "ApiError", "Broker", "Stored"]

LEAST_PAYLOAD = 8192  # headers of dead letters, manifests and status must fit into one message
READER_IDLE_S = 300.0  # the server deletes a reader that gets no request for this time
FULL_S = 0.5  # between two looks whether a message of a tenant waits for room in its own storage
DROP_S = 2.0  # longest wait for the deletion of a reader
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
WRONG_SEQUENCE = 10071  # JetStream's own error number
TTL = "Nats-TTL"  # seconds, in a stream whose messages may expire one by one
DELETED = "KV-Operation"  # header of an entry whose key is deleted


@dataclass(frozen=True, slots=True)
class _Reader:
    """What a reader reads. `created_s` is when it was made, in the server's seconds since 1970."""

    subjects: Sequence[str]
    headers_only: bool
    created_s: float = 0.0


class Broker(MessageStore):
    """A connected broker. Made by `Broker.connect`, ended by `close`."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._readers: dict[tuple[str, str], _Reader] = {}
        self.tracer: OtlpExporter | None = None
        self.quotas = Quotas(self)

    @classmethod
    async def connect(cls, settings: Settings, name: str = "rigflow") -> "Broker":
        """Connect to `settings.nats`. Raises BrokerError at once when it is away or refuses us, UsageError."""
        tracer = open_exporter(settings, name)
        connection = await Connection.open(settings, name)
        if connection.max_payload < LEAST_PAYLOAD:
            await connection.close()
            what = f"the broker takes messages of {connection.max_payload} bytes at most"
            raise UsageError(what, f"set its max_payload to {LEAST_PAYLOAD} or more; 8MB is best")
        broker = cls(connection)
        broker.tracer = tracer
        try:
            await broker._read_tenants()
            await broker.read_clock()
        except BaseException:
            await broker.close()
            raise
        return broker

    async def _read_tenants(self) -> None:
        """Take the list of tenants; a broker without one has none. Raises BrokerError."""
        try:
            body = await self.get(self.names.tenants_bucket, LISTED)
        except Forbidden as error:
            what = "these credentials may not read the list of tenants"
            hint = "those of a client or a tenant are for plain NATS, docs/clients.md; if they are of another role, the"
            hint += " permissions are of an older version: write them again, `rigflow topology roles`, and reload them"
            raise Forbidden(what, hint) from error
        listed = None if body is None else decoded(TenantList, body, "the list of tenants")
        if listed is not None:
            self.take_tenants(listed)

    @classmethod
    @asynccontextmanager
    async def connected(cls, settings: Settings, name: str) -> AsyncIterator["Broker"]:
        """`connect` for a block, and `close` at its end."""
        broker = await cls.connect(settings, name)
        try:
            yield broker
        finally:
            await broker.close()

    async def close(self) -> None:
        """Flush and disconnect."""
        await self.connection.close()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)

    # publishing

    async def publish(
        self, subject: str, body: Buffer | Pieces | Path, message_id: str, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Store a message once; waits without limit while its stream is full or the broker away.

        A body over `max_body` goes to the blob store, a file's (`body` is a path then) chunk by chunk, and the message
        carries its name in the header `Rigflow-Blob` and its size in decimal. False when a message with this id was
        there before. Raises Gone when no stream takes the subject, BrokerError when the broker forbids it, StoreError
        when the body is larger than the blob store, OSError when the file cannot be read.
        """
        all_headers = {HEADER_ID: message_id, **(headers or {})}
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        if size + max(0, headers_bytes(all_headers) - HEADERS_BYTES) <= self.max_body:
            content = await asyncio.to_thread(body.read_bytes) if isinstance(body, Path) else body
            acked, _ = await self.store(
                subject, content if isinstance(content, Pieces) else bytes(content), all_headers
            )
            return acked.new
        body = bytes(body) if isinstance(body, Pieces) else body
        blob = claim_name(subject, message_id, self.connection.unique())
        bucket = self.names.blobs_for(subject)
        await put_blob(self, bucket, body, blob, {SUBJECT: subject})
        try:
            acked, attempts = await self.store(subject, str(size).encode(), all_headers | {HEADER_BLOB: blob})
        except BrokerError:  # the message was refused, so no message names the blob
            await discard_claims(self, bucket, [blob])
            raise
        if not acked.new and attempts == 1:  # the earlier message has a blob of its own
            await discard_claims(self, bucket, [blob])
        return acked.new

    async def publish_soon(
        self, subject: str, body: Buffer | Pieces | Path, message_id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """`publish`, but a message of a listed tenant does not wait while the tenant's own storage is full.

        Whoever works for all tenants must not stand still for one. Raises StorageFull.
        """
        tenant = self.names.listed_tenant(subject)
        if not tenant:
            await self.publish(subject, body, message_id, headers)
            return
        publishing = asyncio.create_task(self.publish(subject, body, message_id, headers))
        try:
            while not (await asyncio.wait([publishing], timeout=FULL_S))[0]:
                if not self.connection.connected or not self.is_refused(publishing):
                    continue  # it moves, however slowly
                size = body.stat().st_size if isinstance(body, Path) else len(body)
                if await self._is_full(tenant, size) and not publishing.done():
                    raise StorageFull(tenant)
            publishing.result()
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])

    async def _is_full(self, tenant: str, size: int) -> bool:
        """Whether a tenant's storage has no room for a message with a body of so many bytes."""
        large = size > self.max_body
        needed = {self.names.results_of(tenant): HEADERS_BYTES + (0 if large else size)}
        if large:
            needed[f"OBJ_{self.names.blobs_of(tenant)}"] = stored_bytes(self, size)
        for stream, nbytes in needed.items():
            info = await self.api(f"STREAM.INFO.{stream}")
            if 0 < int(info["config"]["max_bytes"]) < int(info["state"]["bytes"]) + nbytes:
                return True
        return False

    # readers: consumers of one pull, without acks

    async def create_reader(
        self, stream: str, consumer: str, subjects: Sequence[str], first: int = 1, headers_only: bool = False
    ) -> int:
        """A consumer for one `Pull` that reads `subjects` from sequence `first` on and settles nothing.

        Returns the number of messages that wait for it. After a lost connection the pull calls `resume_reader`, so that
        no message is lost. If this is cancelled or fails, no reader stays.
        """
        try:
            return await self._make_reader(stream, consumer, _Reader(subjects, headers_only), first)
        except BaseException:
            await self.drop_reader(stream, consumer)
            raise

    async def _make_reader(self, stream: str, consumer: str, reader: _Reader, first: int) -> int:
        self._readers[stream, consumer] = reader
        config = {
            "name": consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "filter_subjects": list(reader.subjects),
            "inactive_threshold": int(READER_IDLE_S * 1e9),
            "mem_storage": True,
            "headers_only": reader.headers_only,
        }
        made = await self.api(f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": config})
        if (stream, consumer) in self._readers:  # it was not dropped meanwhile
            self._readers[stream, consumer] = replace(reader, created_s=seconds_of(made["created"]))
        return int(made["num_pending"])

    def is_reader(self, stream: str, consumer: str) -> bool:
        """Whether a consumer is a reader of this connection."""
        return (stream, consumer) in self._readers

    async def resume_reader(self, stream: str, consumer: str, last: int) -> int:
        """Create a reader again, after sequence `last`. Does nothing for a consumer that is not a reader.

        Returns the sequence after which it continues: `last`, or 0 when the stream was deleted and created again.
        """
        reader = self._readers.get((stream, consumer))
        if reader is None:
            return last
        await self.delete_consumer(stream, consumer)
        info = await self.api(f"STREAM.INFO.{stream}")
        if seconds_of(info["created"]) > reader.created_s:
            last = 0
        await self._make_reader(stream, consumer, reader, last + 1)
        return last

    async def drop_reader(self, stream: str, consumer: str) -> None:
        """Delete a reader. A broker that does not answer within `DROP_S` deletes it after `READER_IDLE_S`."""
        self._readers.pop((stream, consumer), None)
        with contextlib.suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(DROP_S if self.connection.connected else 0.0):
                await self.delete_consumer(stream, consumer)

    # key-value buckets, in the layout that NATS clients use

    async def put(self, bucket: str, key: str, value: bytes, ttl_s: int = 0) -> None:
        """Set a key of a bucket; with `ttl_s` the broker deletes this value after so many seconds."""
        message_id = self.connection.unique()  # so that it is not stored twice when the answer is lost
        ttl = {TTL: str(ttl_s)} if ttl_s else {}
        await self.store(f"$KV.{bucket}.{key}", value, {HEADER_ID: message_id} | ttl)

    async def delete_key(self, bucket: str, key: str, sequence: int | None = None) -> bool:
        """Delete a key; watchers of the bucket get an entry with the header `KV-Operation`.

        With a `sequence` only if its last entry is at that one; whether it was.
        """
        headers = {HEADER_ID: self.connection.unique(), DELETED: "DEL"}
        expected = {} if sequence is None else {EXPECTED: str(sequence)}
        try:
            await self.store(f"$KV.{bucket}.{key}", b"", headers | expected)
        except ApiError as error:
            if error.code != WRONG_SEQUENCE:
                raise
            return False
        return True

    async def replace(self, bucket: str, key: str, value: bytes, sequence: int) -> int | None:
        """Set a key whose last entry is at `sequence` (0: none). The new sequence; None when it has a newer entry."""
        headers = {HEADER_ID: self.connection.unique(), EXPECTED: str(sequence)}
        try:
            acked, _ = await self.store(f"$KV.{bucket}.{key}", value, headers)
        except ApiError as error:
            if error.code != WRONG_SEQUENCE:
                raise
            return None
        return acked.sequence

    async def get(self, bucket: str, key: str) -> bytes | None:
        """Value of a key; None when there is none."""
        entry = await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        return None if entry is None or DELETED in entry.headers else entry.body

    async def items(self, bucket: str, pattern: str = ">") -> dict[str, bytes]:
        """All keys of a bucket that match `pattern`, and their values; none when there is no such bucket."""
        prefix = f"$KV.{bucket}."
        entries = [entry async for entry in self.read(f"KV_{bucket}", prefix + pattern)]
        return {entry.subject.removeprefix(prefix): entry.body for entry in entries if DELETED not in entry.headers}
