"""The broker as the rest of rigflow sees it: publish with back-pressure, key-value buckets, reading streams."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from pipelines.connection import STATUS, Away, Connection, NoResponders
from schemas.errors import BrokerError
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_ID, Names

HEADERS_BYTES = 4096  # room for headers, which count towards the server's max_payload
IN_FLIGHT_BYTES = 8 << 20  # more in flight gives no more throughput, and every queue on the way copies it
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
ATTEMPTS = 18  # about 13 s of pauses: a cluster elects a leader within 10
READ_MESSAGES, READ_BYTES = 256, 8 << 20  # one batch of a read
READER_IDLE_S = 300.0  # a reader that nobody pulls from for so long goes away

# JetStream's own error numbers
STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND = 10059, 10014, 10037
ACCOUNT_FULL, STORAGE_FULL = 10002, 10047


class ApiError(BrokerError):
    """The broker understood and said no: `status` as in HTTP, `code` JetStream's own number."""

    def __init__(self, what: str, status: int, code: int) -> None:
        super().__init__(f"the broker says: {what}")
        self.status = status
        self.code = code

    @property
    def passing(self) -> bool:
        """Whether the same request may be granted later: a stream, a server or an account that is full just now."""
        return self.status == 503 or self.code in (ACCOUNT_FULL, STORAGE_FULL)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a stream."""

    subject: str
    sequence: int
    headers: Mapping[str, str]
    body: bytes


class Broker:
    """A connected broker. Made by `Broker.connect`, ended by `close`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.settings = connection.settings
        self.names = Names(connection.settings.prefix)
        self._flight = _Flight(IN_FLIGHT_BYTES)
        self._refused = 0
        self._readers: dict[tuple[str, str], Sequence[str]] = {}

    @classmethod
    async def connect(cls, settings: Settings, name: str = "rigflow") -> "Broker":
        """Connect to `settings.nats`. Raises BrokerError at once when it is away or refuses us, UsageError."""
        return cls(await Connection.open(settings, name))

    async def close(self) -> None:
        """Flush and disconnect."""
        await self.connection.close()

    @property
    def max_body(self) -> int:
        """Most bytes of a body in one message; larger ones travel as claim checks."""
        return int(self.connection.nc.max_payload) - HEADERS_BYTES

    @property
    def waiting(self) -> str:
        """For whom publishing waits now: "the broker" (it is away), "the fleet" (a queue is full), or "" (nobody)."""
        if not self.connection.connected:
            return "the broker"
        return "the fleet" if self._refused else ""

    # publishing

    async def publish(
        self, subject: str, body: bytes, message_id: str, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Store a message once; waits while its stream is full or the broker away, for ever.

        A body over `max_body` goes to the blob store, and the message carries its name in the header `Rigflow-Blob`
        and its size in decimal. False when a message with this id was there before. Raises BrokerError when no stream
        takes the subject or the broker forbids it.
        """
        if len(body) <= self.max_body:
            new, _ = await self.store(subject, body, {HEADER_ID: message_id, **(headers or {})})
            return new
        from pipelines.blobs import delete_blob, put_blob

        blob = await put_blob(self, self.names.blobs, body)
        all_headers = {HEADER_ID: message_id, HEADER_BLOB: blob, **(headers or {})}
        new, attempts = await self.store(subject, str(len(body)).encode(), all_headers)
        if not new and attempts == 1:  # the message that was there before has a blob of its own
            await delete_blob(self, self.names.blobs, blob)
        return new

    async def store(self, subject: str, body: bytes, headers: Mapping[str, str]) -> tuple[bool, int]:
        """Publish one message as it is until it is stored: whether it was new, and how many attempts that took.

        Its `Nats-Msg-Id` is what makes it safe to send again when the answer is lost.
        """
        attempts = missing = 0
        refused = False
        try:
            while True:
                attempts += 1
                try:
                    async with self._flight.hold(len(body)):  # not while we wait: a full queue must not block others
                        acked = _parse(await self.connection.request(subject, body, headers))
                    return not acked.get("duplicate", False), attempts
                except Away:
                    await self.connection.wait_connected()
                except NoResponders:
                    missing += 1
                    if missing == ATTEMPTS:
                        hint = "publish its pipeline first; if that is done, see the broker's log"
                        raise BrokerError(f"no stream takes {subject}", hint) from None
                except ApiError as error:
                    if not error.passing:
                        raise
                    if not refused:
                        refused = True
                        self._refused += 1
                await _pause(attempts)
        finally:
            self._refused -= refused

    # JetStream's API

    async def api(self, action: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call `$JS.API.<action>`; tries again while the broker recovers. Raises ApiError, BrokerError."""
        body = b"" if arguments is None else json.dumps(arguments).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _parse(await self.connection.request(f"$JS.API.{action}", body))
            except (Away, NoResponders):
                await _pause(attempt)
            except ApiError as error:
                if error.status != 503:
                    raise
                await _pause(attempt)
        raise BrokerError(f"the broker does not answer {action}", "is JetStream on there, and its disk not full?")

    async def stream_bytes(self, stream: str) -> int:
        """Bytes that a stream holds."""
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["bytes"])

    async def purge(self, stream: str, subject: str, keep: int = 0) -> None:
        """Delete a subject's messages from a stream, but for the last `keep`."""
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject, "keep": keep})

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Delete one message; nothing happens when it is gone."""
        await self._unless_gone(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    async def message(self, stream: str, sequence: int) -> Stored | None:
        """One message of a stream; None when it is gone."""
        found = await self._direct(stream, {"seq": sequence})
        return _stored(found[0]) if found else None

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a stream on a subject; None when there is none, or no such stream."""
        found = await self._direct(stream, {"last_by_subj": subject})
        return _stored(found[0]) if found else None

    async def read(self, stream: str, subject: str = ">", first: int = 1) -> AsyncIterator[Stored]:
        """All messages of a stream on `subject` (wildcards allowed) from sequence `first` up to now, in order."""
        while True:
            found = await self._direct(
                stream, {"seq": first, "next_by_subj": subject, "batch": READ_MESSAGES, "max_bytes": READ_BYTES}
            )
            for message in found:
                yield _stored(message)
            if not found or found[-1].headers["Nats-Num-Pending"] == "0":
                return
            first = _stored(found[-1]).sequence + 1

    async def _direct(self, stream: str, arguments: Mapping[str, Any]) -> list[Msg]:
        """Messages by `$JS.API.DIRECT.GET`, which needs no consumer; none when the stream does not exist."""
        subject, body = f"$JS.API.DIRECT.GET.{stream}", json.dumps(arguments).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if "batch" in arguments:
                    return await self.connection.request_many(subject, body)
                message = await self.connection.request(subject, body)
                return [] if STATUS in message.headers else [message]
            except Away:
                await _pause(attempt)
            except NoResponders:
                if await self._unless_gone(f"STREAM.INFO.{stream}") is None:
                    return []
                await _pause(attempt)
        raise BrokerError(f"the broker does not give out messages of {stream}", "see its log")

    async def _unless_gone(self, action: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """`api`, but None when the stream, consumer or message does not exist."""
        try:
            return await self.api(action, arguments)
        except ApiError as error:
            if error.code in (STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND) or error.status == 404:
                return None
            raise

    # readers: consumers of one reader, without acks

    async def create_reader(self, stream: str, consumer: str, subjects: Sequence[str], first: int = 1) -> None:
        """A consumer for one `Pull` that reads `subjects` from sequence `first` on and settles nothing.

        What was on its way when the connection broke is not lost: the pull then calls `resume_reader`.
        """
        config = {
            "name": consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "filter_subjects": list(subjects),
            "inactive_threshold": int(READER_IDLE_S * 1e9),
            "mem_storage": True,
        }
        self._readers[stream, consumer] = subjects
        await self.api(f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": config})

    async def resume_reader(self, stream: str, consumer: str, first: int) -> bool:
        """Make a reader anew from sequence `first` on; False when the consumer is no reader of ours."""
        subjects = self._readers.get((stream, consumer))
        if subjects is None:
            return False
        await self.delete_consumer(stream, consumer)
        await self.create_reader(stream, consumer, subjects, first)
        return True

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer; nothing happens when it is gone."""
        self._readers.pop((stream, consumer), None)
        await self._unless_gone(f"CONSUMER.DELETE.{stream}.{consumer}")

    # key-value buckets, in the layout of every NATS client

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Set a key of a bucket."""
        message_id = self.connection.unique()  # so that an answer that is lost does not store it twice
        await self.store(f"$KV.{bucket}.{key}", value, {HEADER_ID: message_id})

    async def get(self, bucket: str, key: str) -> bytes | None:
        """Value of a key; None when there is none."""
        entry = await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        return None if entry is None or "KV-Operation" in entry.headers else entry.body

    async def items(self, bucket: str, pattern: str = ">") -> dict[str, bytes]:
        """All keys of a bucket that match `pattern`, and their values; none when there is no such bucket."""
        prefix = f"$KV.{bucket}."
        found: dict[str, bytes] = {}
        async for entry in self.read(f"KV_{bucket}", prefix + pattern):
            key = entry.subject.removeprefix(prefix)
            found.pop(key, None)
            if "KV-Operation" not in entry.headers:
                found[key] = entry.body
        return found

    async def watch(self, bucket: str, pattern: str = ">") -> AsyncIterator[tuple[str, bytes]]:
        """Keys and values of a bucket, those there are and then every change; the bucket may come later.

        A change is told at once. After a reconnect everything is told again, so that nothing is missed.
        """
        prefix = f"$KV.{bucket}."
        changes: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        changes.put_nowait(None)  # None: read all

        async def on_change(message: Msg) -> None:
            if not message.headers or "KV-Operation" not in message.headers:
                changes.put_nowait((message.subject.removeprefix(prefix), message.data))

        subscription = await self.connection.nc.subscribe(prefix + pattern, cb=on_change)
        forget = self.connection.when_reconnected(lambda: changes.put_nowait(None))
        try:
            while True:
                change = await changes.get()
                told = (await self.items(bucket, pattern)).items() if change is None else (change,)
                for key, value in told:
                    yield key, value
        finally:
            forget()
            if self.connection.connected:
                await subscription.unsubscribe()


class _Flight:
    """Bytes on their way to the broker: first come, first served, and one that is larger than the limit goes alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, nbytes: int) -> AsyncIterator[None]:
        async with self._turn:
            while self._used_bytes and self._used_bytes + nbytes > self._limit_bytes:
                self._freed.clear()
                await self._freed.wait()
            self._used_bytes += nbytes
        try:
            yield
        finally:
            self._used_bytes -= nbytes
            self._freed.set()


async def _pause(attempt: int) -> None:
    """Wait before the next attempt: doubling, bounded, and jittered so that a fleet does not knock in step."""
    await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1.5))


def _parse(message: Msg) -> dict[str, Any]:
    """JetStream's answer. Raises ApiError when it is an error."""
    answer: dict[str, Any] = json.loads(message.data)
    if error := answer.get("error"):
        raise ApiError(error.get("description", "no reason"), error.get("code", 0), error.get("err_code", 0))
    return answer


def _stored(message: Msg) -> Stored:
    headers = message.headers
    own = {name: value for name, value in headers.items() if name not in _DIRECT_HEADERS}
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), own, message.data)


_DIRECT_HEADERS = frozenset(
    {"Nats-Subject", "Nats-Sequence", "Nats-Stream", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"}
)
