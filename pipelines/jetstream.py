"""JetStream's API: calls that are repeated while a broker recovers, and reading of streams without a consumer."""

import asyncio
import base64
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

from pipelines.answers import headers_of
from pipelines.connection import Connection
from pipelines.inbox import Away, NoResponders
from schemas.errors import BrokerError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
ATTEMPTS = 18  # about 13 s of pauses: a cluster elects a leader within 10
READ_MESSAGES, READ_BYTES = 256, 8 << 20  # one batch of a read

# JetStream's own error numbers
STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND = 10059, 10014, 10037
GONE = frozenset({STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND})
ACCOUNT_FULL, STORAGE_FULL, STREAM_FULL = 10002, 10047, 10077


class Gone(BrokerError):
    """A stream or message that a job needs was deleted. Publishing the job again creates it."""


class ApiError(BrokerError):
    """The broker refused a request: `status` as in HTTP, `code` JetStream's own number."""

    def __init__(self, what: str, status: int, code: int) -> None:
        super().__init__(f"the broker says: {what}")
        self.status = status
        self.code = code

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later: the broker recovers, or is full now."""
        return self.status == 503 or self.full

    @property
    def full(self) -> bool:
        """Whether a stream, a server or an account has no space for the message."""
        return self.code in (ACCOUNT_FULL, STORAGE_FULL, STREAM_FULL)


class StreamGone(ApiError, Gone):
    """The broker has no stream of this name."""

    def __init__(self, stream: str) -> None:
        hint = "start a new job, which creates it: `rigflow run`"
        BrokerError.__init__(self, f"the stream {stream} was deleted from the broker", hint)
        self.status, self.code = 404, STREAM_NOT_FOUND


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a stream; `stored_s` is when it was stored, in the server's seconds since 1970."""

    subject: str
    sequence: int
    headers: Mapping[str, str]
    body: bytes
    stored_s: float = 0.0


class JetStream:
    """Calls over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._behind_s = 0.0  # how far the clock of this machine is behind that of the broker

    def now_s(self) -> float:
        """Seconds since 1970 by the broker's clock, which all machines share: their own may be wrong.

        Most answers of `api` say what it shows. What is known is kept as long as no answer contradicts it, so that it
        is exactly our own clock where that is the broker's.
        """
        return time.time() + self._behind_s

    def now_ms(self) -> int:
        """`now_s` in milliseconds."""
        return int(self.now_s() * 1000)

    def _read_clock(self, answer: Mapping[str, Any], asked_s: float) -> None:
        """Take the broker's time from an answer; it was read there between `asked_s` and now."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if (broker_s := seconds_of(answer["ts"])) > 0:  # a server that leaves it out writes the year 1
                self._behind_s = min(max(self._behind_s, broker_s - time.time()), broker_s - asked_s)

    async def api(self, action: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call `$JS.API.<action>`; tries again while the broker recovers. Raises StreamGone, ApiError, BrokerError."""
        body = b"" if arguments is None else json.dumps(arguments).encode()
        for attempt in range(1, ATTEMPTS + 1):
            asked_s = time.time()
            try:
                answer = parse(await self.connection.request(f"$JS.API.{action}", body))
                self._read_clock(answer, asked_s)
                return answer
            except (Away, NoResponders):
                await pause(attempt)
            except ApiError as error:
                if error.code == STREAM_NOT_FOUND:
                    raise StreamGone(_stream_in(action)) from error
                if error.status != 503:
                    raise
                await pause(attempt)
        raise BrokerError(f"the broker does not answer {action}", "is JetStream on there, and its disk not full?")

    async def api_unless_gone(self, action: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """`api`, but None when the stream, the consumer or the message does not exist."""
        try:
            return await self.api(action, arguments)
        except ApiError as error:
            if error.code in GONE:
                return None
            raise

    async def stream_bytes(self, stream: str) -> int:
        """Bytes that a stream holds."""
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["bytes"])

    async def purge(self, stream: str, subject: str, up_to: int | None = None) -> None:
        """Delete a subject's messages from a stream: all, or those up to and with sequence `up_to`."""
        limit = {} if up_to is None else {"seq": up_to + 1}
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject, **limit})

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Delete one message; nothing happens when it is gone."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except ApiError:
            if await self.message(stream, sequence) is not None:
                raise

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer; nothing happens when it is gone."""
        await self.api_unless_gone(f"CONSUMER.DELETE.{stream}.{consumer}")

    async def message(self, stream: str, sequence: int) -> Stored | None:
        """One message of a stream; None when it is gone."""
        return await self._one(stream, {"seq": sequence})

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a stream on a subject; None when there is none, or no such stream."""
        return await self._one(stream, {"last_by_subj": subject})

    async def first(self, stream: str, subject: str, sequence: int = 1) -> Stored | None:
        """The oldest message on a subject from a sequence on; None when there is none, or no such stream."""
        return await self._one(stream, {"seq": sequence, "next_by_subj": subject})

    async def read(self, stream: str, subject: str = ">", first: int = 1) -> AsyncIterator[Stored]:
        """All messages of a stream on `subject` (wildcards allowed) from sequence `first` up to now, in order.

        In a cluster the copy that answers may be a moment behind what was stored last.
        """
        while True:
            found = await self._batch(
                stream, {"seq": first, "next_by_subj": subject, "batch": READ_MESSAGES, "max_bytes": READ_BYTES}
            )
            for message in found:
                yield _stored(message)
                await asyncio.sleep(0)  # otherwise a caller handles the whole batch in one step of the event loop
            if not found or headers_of(found[-1])["Nats-Num-Pending"] == "0":
                return
            first = _stored(found[-1]).sequence + 1

    async def _one(self, stream: str, arguments: Mapping[str, Any]) -> Stored | None:
        """One message as the stream's leader has it: any copy answers a direct get, and one may lag behind."""
        found = await self.api_unless_gone(f"STREAM.MSG.GET.{stream}", arguments)
        if found is None:
            return None
        message = found["message"]
        headers = _parse_headers(base64.b64decode(message.get("hdrs", "")))
        body = base64.b64decode(message.get("data", ""))
        return Stored(message["subject"], message["seq"], headers, body, seconds_of(message.get("time", "")))

    async def _batch(self, stream: str, arguments: Mapping[str, Any]) -> list[Msg]:
        """Messages by `$JS.API.DIRECT.GET`; none when there are none, or no such stream."""
        subject, body = f"$JS.API.DIRECT.GET.{stream}", json.dumps(arguments).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.connection.request_many(subject, body)
            except NoResponders:
                if await self.api_unless_gone(f"STREAM.INFO.{stream}") is None:
                    return []
                await pause(attempt)
            except Away:
                await pause(attempt)
        raise BrokerError(f"the broker does not give out messages of {stream}", "see its log")


async def pause(attempt: int) -> None:
    """Wait before the next attempt: doubled, bounded, and random so that processes do not retry at once."""
    doubled_s = FIRST_PAUSE_S * 2 ** min(attempt - 1, 10)
    await asyncio.sleep(min(LONGEST_PAUSE_S, doubled_s) * random.uniform(0.5, 1.5))


def parse(message: Msg) -> dict[str, Any]:
    """JetStream's answer. Raises ApiError when it is an error."""
    answer: dict[str, Any] = json.loads(message.data)
    if error := answer.get("error"):
        raise ApiError(error.get("description", "no reason"), error.get("code", 0), error.get("err_code", 0))
    return answer


def _stream_in(action: str) -> str:
    """The stream that a call is about: the last token of STREAM.X.NAME, the third of CONSUMER.X.NAME.CONSUMER."""
    tokens = action.split(".")
    return tokens[2] if tokens[0] == "CONSUMER" else tokens[-1]


def _parse_headers(raw: bytes) -> dict[str, str]:
    """Headers as they lie in a stream: a line for the version, then one a header."""
    lines = raw.decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def _stored(message: Msg) -> Stored:
    """A message from a direct get; the server adds headers with its subject and sequence."""
    headers = headers_of(message)
    own = {name: value for name, value in headers.items() if name not in _ADDED}
    stored_s = seconds_of(headers.get("Nats-Time-Stamp", ""))
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), own, message.data, stored_s)


def seconds_of(timestamp: str) -> float:
    """Seconds since 1970 of a time as the server writes it; 0 when it writes none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0


_ADDED = frozenset(
    ("Nats-Subject", "Nats-Sequence", "Nats-Stream", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence")
)
