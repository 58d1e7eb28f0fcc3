"""One connection to the broker: clear errors, requests that fail when the broker is lost, settlements that are kept.

Nothing is buffered inside nats-py, so a message whose caller stopped waiting cannot reach the broker later.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pipelines.answers import headers_bytes, status_of
from pipelines.inbox import REQUEST_S, Answers, Away, Inbox, OneAnswer, next_answer
from pipelines.login import CONNECT_S, credential_options, local_broker_options, reason_of, refusal
from pipelines.nats_client import NatsClient
from pipelines.nats_sending import Body
from pipelines.tls import password_options, tls_options
from schemas.errors import BrokerError, Disposition, UsageError
from schemas.settings import Settings
from schemas.text import without_passwords

SCHEMES = frozenset({"nats", "tls", "ws", "wss"})
HANDSHAKES = 8  # attempts: a server that refuses us closes the connection, and its reason may be lost
HANDED_OVER_S = 1.0  # until what is sent reaches the kernel
PING_S, PINGS_LOST = 5, 2  # a peer without an answer for 15 s counts as lost
RECONNECT_S = 0.1


class MessageTooLarge(BrokerError):
    """A message is larger than the server takes, which would close the connection."""

    disposition = Disposition.REJECT


class Forbidden(BrokerError):
    """Our credentials do not permit a request."""


class _HungUp(Exception):
    """The server ended the handshake, and its reason was lost with the connection."""


class Connection:
    """A connection that reconnects without limit. Made by `Connection.open`, ended by `close`."""

    def __init__(self, settings: Settings) -> None:
        self.nc = NatsClient(settings)
        self.settings = settings
        self._where = without_passwords(settings.nats).replace(",", ", ")
        self._attempts_left = len(settings.nats.split(","))
        self.losses = 0  # how often the connection broke
        self._handshaking = True
        self._connected = asyncio.Event()
        self._last_error = ""
        self._inbox = Inbox()
        self._unsettled: list[tuple[str, bytes]] = []
        self._on_reconnect: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, settings: Settings, name: str) -> "Connection":
        """Connect to `settings.nats`. Raises BrokerError at once when it is away or refuses us, UsageError."""
        for _ in range(HANDSHAKES):
            connection = cls(settings)
            if await connection._handshake(name):
                return connection
        raise BrokerError(
            f"the broker at {connection._where} closes the connection", "check the URL and `--credentials`"
        )

    async def _handshake(self, name: str) -> bool:
        """Whether we are connected; False when the server hung up before we could read why."""
        what, hint = f"{self._where}: not a URL of a broker", "it is nats://host:port"
        schemes = {url.partition("://")[0].strip() for url in self.settings.nats.split(",") if "://" in url}
        if not schemes <= SCHEMES:
            raise UsageError(what, hint)
        try:
            options = self._options(name)
        except ValueError as error:
            raise UsageError(what, hint) from error
        try:
            await self.nc.connect(**options)
        except nats.errors.Error as error:
            raise UsageError(what, hint) from error
        except _HungUp:
            await self.close()
            return False
        except BaseException:
            await self.close()
            raise
        if not self.connected:
            await self.close()
            return False
        await self._on_connect()
        self._inbox.prefix = self.nc.new_inbox()
        await self.nc.subscribe_now(f"{self._inbox.prefix}.*", self._inbox.on_answer)
        return True

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "servers": self.settings.nats.split(","),
            "name": name,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_connect,
            "closed_cb": self._on_disconnect,
            "connect_timeout": CONNECT_S,
            "reconnect_time_wait": RECONNECT_S,
            "max_reconnect_attempts": -1,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_LOST,
            "inbox_prefix": self.settings.inbox,
            "pending_size": 0,  # publishing while disconnected is an error, not a buffer
            **tls_options(self.settings),
            **self._login(),
        }

    def _login(self) -> dict[str, Any]:
        """Options for nats-py: credentials of the settings, else of the URLs, else the password of a local broker."""
        given = credential_options(self.settings.credentials) or password_options(
            self.nc, self.settings.nats.split(",")
        )
        return given or local_broker_options(self.settings.nats)

    @property
    def connected(self) -> bool:
        """Whether the broker is connected now."""
        return bool(self.nc.is_connected)

    @property
    def absence(self) -> str:
        """For messages: the URL of the broker that is away, and the last error."""
        return f"the broker at {self._where} is away" + (f" ({self._last_error})" if self._last_error else "")

    @property
    def closed(self) -> bool:
        """Whether the connection is closed for good, by `close` or by the broker."""
        return bool(self.nc.is_closed)

    @property
    def max_payload(self) -> int:
        """Most bytes of a message, headers included, that the server takes."""
        return int(self.nc.max_payload)

    async def wait_connected(self) -> None:
        """Wait until the broker is connected. Raises BrokerError when the connection is closed for good."""
        if not self._connected.is_set():
            await self._connected.wait()
        if self.closed:
            raise BrokerError(f"the connection to {self._where} is closed ({self._last_error or 'by us'})")

    def when_reconnected(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` after each reconnect, until the returned function is called."""
        self._on_reconnect.append(call)
        return lambda: self._on_reconnect.remove(call)

    async def request(self, subject: str, body: Body = b"", headers: Mapping[str, str] | None = None) -> Msg:
        """Send and await the answer. Raises Away, NoResponders, BrokerError when it is not permitted."""
        await self.wait_connected()
        answer = OneAnswer()
        with self._inbox.asking(subject, answer.take) as reply:
            self.send(subject, body, reply, headers)
            return await answer.wait()

    async def request_many(self, subject: str, body: bytes) -> list[Msg]:
        """Send and await all answers until the server ends them. Raises as `request` does."""
        found = []
        await self.wait_connected()
        answers: Answers = asyncio.Queue()
        with self._inbox.asking(subject, answers.put_nowait) as reply:
            self.send(subject, body, reply)
            while not status_of(answer := await next_answer(answers)):
                found.append(answer)
        return found

    def send(self, subject: str, body: Body, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send without waiting for an answer. Raises Away when the broker is away, MessageTooLarge."""
        nbytes = len(body) + (headers_bytes(headers) if headers else 0)
        if self.connected and nbytes > self.max_payload:
            what = (
                f"a message of {nbytes} bytes to {subject} is larger than the broker takes ({self.max_payload} bytes)"
            )
            raise MessageTooLarge(what, "raise the broker's max_payload; 8MB is best")
        try:
            self.nc.post(subject, body, reply, headers)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError) as error:
            raise Away(reason_of(error)) from error

    async def send_now(self, subject: str, body: bytes) -> None:
        """`send`, and wait until the kernel has it. It then arrives even if this process is killed. Raises Away."""
        self.send(subject, body)
        await self.nc.hand_over(HANDED_OVER_S)

    def settle(self, reply: str, verdict: bytes) -> None:
        """Send the settlement of a delivery. While the broker is away, it is kept and sent after the reconnect."""
        try:
            self.send(reply, verdict)
        except Away:
            self._unsettled.append((reply, verdict))

    async def flush(self) -> None:
        """Wait until all that the server has sent so far is received. Raises Away when the broker does not answer."""
        try:
            await self.nc.flush(int(REQUEST_S))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Away(reason_of(error)) from error

    async def unsubscribe(self, subscription: Subscription, drain_s: float = 0.0, linger_s: float = 0.0) -> None:
        """End a subscription. Messages that arrive within `drain_s` seconds are still delivered.

        The server confirms the end before it sends the last messages of a consumer. The subscription stays for
        `linger_s` to receive those: otherwise they would be delivered again only after `ack_wait_s`.
        """
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):  # the connection breaks: that ends it, too
            if drain_s and self.connected:
                if linger_s:
                    await self.nc.send_unsubscribe(subscription)
                    await asyncio.sleep(linger_s)
                async with asyncio.timeout(drain_s):
                    await subscription.drain()  # type: ignore[no-untyped-call]
            elif not self.closed:
                await subscription.unsubscribe()

    def unique(self) -> str:
        """A token that no other process makes."""
        return str(self.nc.new_inbox().rpartition(".")[2])

    async def close(self) -> None:
        """Flush and disconnect."""
        self._handshaking = False
        await self.nc.close_surely()

    async def _on_connect(self) -> None:
        first, self._handshaking = self._handshaking, False
        self._connected.set()
        self._inbox.forbid(None)  # the permissions may be others now
        unsettled, self._unsettled = self._unsettled, []
        for reply, verdict in unsettled:
            self.settle(reply, verdict)
        if not first:
            for call in list(self._on_reconnect):
                call()

    async def _on_disconnect(self) -> None:
        if self.closed:
            self._connected.set()  # wakes `wait_connected`, which raises
        else:
            self._connected.clear()
        self.losses += 1
        self._inbox.fail(Away("the connection broke"))

    async def _on_error(self, error: Exception) -> None:
        """Handle an error of nats-py: it is raised during the first handshake, and recorded later.

        In another task, as that which reads when a server disconnects us at once, nats-py would print a traceback.
        """
        self._last_error = reason_of(error)
        if self.nc.connects_here:
            if isinstance(error, ConnectionResetError | BrokenPipeError):
                raise _HungUp
            self._attempts_left -= 1
            if self._attempts_left <= 0:
                given = "@" in self.settings.nats or bool(self._login())
                raise refusal(self._where, error, given, self.nc.asks_for_key)
        elif not isinstance(error, nats.errors.Error | OSError | TimeoutError):
            # a callback of ours failed
            asyncio.get_running_loop().call_exception_handler({"message": self._last_error, "exception": error})
        elif f'violation for subscription to "{self._inbox.prefix.lower()}.' in self._last_error:
            what = f"the broker lets these credentials receive no answers on {self.settings.inbox}"
            self._inbox.forbid(
                BrokerError(what, "RIGFLOW_INBOX and the key are of one role, as _INBOX_worker and worker.nk")
            )
        elif "permissions violation" in self._last_error:
            denied = Forbidden(f"the broker forbids this ({self._last_error})", "use the key of a role that may")
            self._inbox.fail(denied, named_in=self._last_error)
