"""The NATS client: nats-py, with corrections and additions.

This module and those beside it whose names begin with `nats_` alone use names of nats-py that begin with an
underscore. They may change in any release, so pyproject.toml allows one minor release of nats-py; look through this
list before you allow another.
nats-py 2.16
  speaks plain text to a `tls://` server that does not ask for TLS (`_process_info`, `_current_server`);
  waits for ever for a connection to close whose TLS handshake failed (`_process_connect_init`, `_transport`);
  reads nothing any more after the answer to a flush that timed out (`_process_pong`, `_pongs`, `_pings_outstanding`);
  reads nothing any more after a message whose subject or headers are not UTF-8, or whose headers are none: the server
  takes such messages from any client (`_build_message`, `_process_headers`, and in `pipelines.nats_parser` the public
  patterns of its parser);
  has no way to wait until the kernel has what was sent, without an answer of the server (`_flush_pending`);
  has no way to end subscriptions together that keep receiving what is on its way (`_send_unsubscribe`,
  `Subscription._id`, `_pending_queue`);
  makes a reader of a TLS connection that does not know of it (`_transport`, its writer, and a mark of asyncio's);
  cannot be closed after its connection broke during the last flush (`_status`), nor while the task that reconnects
  waits for the end of the old one: that is cancelled, and with it what `close` itself waits for (`_closed_cb`);
  copies a payload twice before it is sent, and wakes a task for each command (`_send_publish`, `_flush_pending`,
  `_pending`, `_pending_data_size`, `_flush_queue`, `_flusher_task`; see `pipelines.nats_sending`);
  wakes a task for each message (`_process_msg`, `_remove_sub`, `_error_cb`);
  copies a payload four times as it comes, and wakes a task for each small piece of it (`_ps`, `_process_msg`,
  `_connect_to_server`, `_transport` and DEFAULT_BUFFER_SIZE; see `pipelines.nats_parser` and `nats_arrivals`);
  never reconnects where a connection breaks during its handshake and the event loop is uvloop's, which raises
  RuntimeError for what is written then (see `pipelines.nats_arrivals`);
  looks at each character of the name of each header (`_parse_header_lines`);
  signs whatever a server sends as the nonce of a login (`_connect_command`, `_server_info`, `_signature_cb`);
  loses a cancellation that comes as one of its waits ends, as `asyncio.wait_for` does before Python 3.12.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import ParseResult

import nats.aio.client
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pipelines.nats_arrivals import ArrivalTransport
from pipelines.nats_parser import Parser
from pipelines.nats_sending import SendingClient
from schemas.settings import Settings

_READ_BYTES = 1 << 18  # as much as uvloop reads at a time: it need not pause for each read
nats.aio.client.DEFAULT_BUFFER_SIZE = _READ_BYTES

LINGER_S = 1.0  # after a subscription was left, for messages that the server has just sent
TAKEN_S = 2.0  # longest wait until those are taken
_NONCE = re.compile("[A-Za-z0-9_-]{11,64}")  # base64url; nats-server's have 15 characters


class NatsClient(SendingClient):
    """With `tls://` or the settings `tls_*`, nothing is sent without TLS, in particular no password."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._ps = self._parser = Parser(self)
        self._always = bool(settings.tls_ca or settings.tls_cert)
        self._connect_task: asyncio.Task[Any] | None = None
        self._takes: dict[int, Callable[[Msg], None]] = {}
        self._left: list[Subscription] = []
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def server_uri(self) -> ParseResult | None:
        """The URL of the server that it is connecting to."""
        server = self._current_server
        uri: ParseResult | None = None if server is None else server.uri
        return uri

    @property
    def asks_for_login(self) -> bool:
        """Whether the server lets in only those who have a key or a password."""
        return bool(self._server_info.get("auth_required"))

    @property
    def server_host(self) -> str:
        """The address that the server listens on: 0.0.0.0 is every one of its machine."""
        return str(self._server_info.get("host", ""))

    async def connect(self, *args: Any, **options: Any) -> None:
        """Connect, or end with the cancellation."""

        async def connect() -> None:
            self._connect_task = asyncio.current_task()
            await super(NatsClient, self).connect(*args, **options)

        await _cancellable(connect())

    @property
    def connects_here(self) -> bool:
        """Whether the task that runs now is that of `connect`, which raises what a callback raises."""
        return asyncio.current_task() is self._connect_task

    @property
    def asks_for_key(self) -> bool:
        """Whether the server knows nkeys: only then does it send what a key signs."""
        return bool(self._server_info.get("nonce"))

    async def flush(self, timeout: int = 10) -> None:
        """Wait for an answer of the server, or end with the cancellation."""
        await _cancellable(super().flush(timeout))

    async def hand_over(self, timeout_s: float) -> None:
        """Wait until the kernel has all that was published; `flush` would wait for an answer."""

        async def hand_over() -> None:
            with suppress(OSError):  # the connection broke
                await self._flush_pending(force_flush=True)
                if self._transport is not None:
                    await self._transport.drain()  # type: ignore[no-untyped-call]

        await asyncio.wait([asyncio.create_task(hand_over())], timeout=timeout_s)

    async def send_unsubscribe(self, subscription: Subscription) -> None:
        """Have the server send nothing more to a subscription, which still receives what is on its way."""
        await self._send_unsubscribe(subscription._id)

    def leave(self, subscription: Subscription) -> None:
        """End a subscription at the server. For `LINGER_S`, its callback still takes messages that are on their way.

        Those that are left in one step of the event loop cost one task and one round trip.
        """
        if not self._left:
            leaving = asyncio.create_task(self._leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._left.append(subscription)

    async def _leave(self) -> None:
        left, self._left = self._left, []
        for subscription in left if self.is_connected else ():
            await self.send_unsubscribe(subscription)
        await asyncio.sleep(LINGER_S)
        with suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(TAKEN_S):
                await self.flush()
                for subscription in left:
                    await subscription._pending_queue.join()
        with suppress(nats.errors.Error, OSError):  # it is closed, or broke: that ends them as well
            for subscription in left:
                await subscription.unsubscribe()

    async def close_surely(self) -> None:
        """Flush and disconnect, also when the connection breaks meanwhile, or is being made anew."""
        for leaving in self._leaving:
            leaving.cancel()
        task = asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        try:
            await self.close()
        except (OSError, EOFError, RuntimeError):  # the last is uvloop's
            self._status, self._pending, self._pending_data_size = Client.DISCONNECTED, [], 0
            await self.close()
        except asyncio.CancelledError:
            if task is None or task.cancelling() > cancelled:
                raise
            if self._closed_cb is not None:
                await self._closed_cb()

    async def subscribe_now(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Have `take` called with each message of a subject as it is read: without a queue, a limit, or another task.

        What `take` raises goes to `error_cb`.
        """
        subscription = await self.subscribe(subject, future=asyncio.get_running_loop().create_future())
        self._takes[subscription._id] = take
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._takes.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    def takes_now(self, sid: int) -> bool:
        """Whether messages of a subscription are taken as they are read."""
        return sid in self._takes

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        """Take a message of such a subscription."""
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            if (take := self._takes.get(sid)) is not None:
                headers = _at_once(self._process_headers(headers))
                take(self._build_message(sid, subject, reply, data, headers))
        except Exception as error:
            _at_once(self._error_cb(error))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if self.takes_now(sid):
            self.deliver(sid, subject, reply, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _connect_to_server(self, server: Any) -> None:
        """Connect; by TCP with a transport that does not copy what it reads."""
        if server.uri.scheme in ("ws", "wss"):
            await super()._connect_to_server(server)
            return
        server.last_attempt = time.monotonic()
        self._transport = self._transport or ArrivalTransport(self._parser)
        await self._transport.connect(server.uri, _READ_BYTES, self.options["connect_timeout"])

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """nats-py looks at `tls_required` after this: the handshake with a server that has no TLS fails there."""
        uri = self.server_uri
        secured = ("nats", "tls") if self._always else ("tls",)
        if initial_connection and uri is not None and uri.scheme in secured:
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        """The login. Raises nats.errors.Error for a nonce that may be anything else, as a pipeline to be signed."""
        nonce = self._server_info.get("nonce")
        if self._signature_cb is not None and nonce is not None and not _is_nonce(nonce):
            raise nats.errors.Error("nats: its nonce is none that a key may sign")
        command: bytes = super()._connect_command()
        return command

    async def _process_pong(self) -> None:
        """The answer to a flush that was given up: nats-py would stop reading, because it cannot set that result."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """The headers of a message; None where they are none."""
        try:
            return await super()._process_headers(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The headers by name, the last of each name; lines that are no header are left out."""
        found: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            name = name.strip()
            if colon and name.isascii() and (key := name.decode()).split() == [key]:
                found[key] = value.strip().decode(errors="replace")
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        """In subjects, what is not UTF-8 becomes U+FFFD."""
        names = subject.decode(errors="replace"), reply.decode(errors="replace")
        return Msg(self, *names, data, headers, _sid=sid)

    async def _process_connect_init(self) -> None:
        """After a TLS handshake that failed a connection never closes: nats-py would wait for that for ever."""
        try:
            await super()._process_connect_init()
            _know_tls(self._transport)
        except (OSError, TimeoutError):
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
                self._transport = None
            raise


def _is_nonce(given: Any) -> bool:
    """Whether a login may sign this. What `pipelines.signing` signs is no nonce."""
    return isinstance(given, str) and _NONCE.fullmatch(given) is not None


def _know_tls(transport: Any) -> None:
    """Tell the reader of a connection that became TLS so; otherwise asyncio warns on stderr whenever one ends."""
    writer = getattr(transport, "_io_writer", None)
    if writer is not None and writer.get_extra_info("ssl_object") is not None:
        writer.transport.get_protocol()._over_ssl = True


def _at_once(call: Any) -> Any:
    """The answer of a call that is declared a coroutine, and waits for nothing."""
    try:
        call.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError("it waits")


async def _cancellable(call: Coroutine[Any, Any, None]) -> None:
    """Await a call of nats-py in a task of its own, and raise the cancellation that the call may lose."""
    task = asyncio.create_task(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
