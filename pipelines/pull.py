"""Pulls messages by credit: as many are requested as the caller can take."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pipelines.answers import STATUS, headers_of
from pipelines.broker import Broker
from pipelines.connection import Connection
from pipelines.delivery import Delivery
from pipelines.inbox import Away
from pipelines.jetstream import StreamGone
from schemas.errors import BrokerError

EXPIRES_S = 30.0  # after which the server ends a request
LATE_S = 2.0  # a request without an answer this long after it expired is lost
HEARTBEAT_S = 3.0  # the server confirms the newest request this often
SILENT_S = 2.5 * HEARTBEAT_S  # without an answer for this long, our requests are lost (with a cluster's leader)
CLOSE_S = 2.0  # longest wait for late messages, and for an `on_delivery` that runs
CLOSING_LINGER_S = 0.05
REFUSED_S = 0.25  # pause after a request that the server refused, doubled each time
LONGEST_REFUSED_S = 4.0  # a publisher may create a deleted stream again
OnDelivery = Callable[[Delivery], Awaitable[None]]
OnGone = Callable[[StreamGone], Awaitable[None]]


class Pull:
    """Takes messages from one consumer: `open`, then `request` as many as the caller can take, then `close`.

    For every message requested and not withdrawn, `on_delivery` is called once, one call after the other. Requests that
    expire, that the server refuses, or that are lost with the connection are repeated. An exception of `on_delivery` is
    logged, and its message is delivered again when its lease ends.

    When the stream is deleted, the pull waits until it is created again. With `on_gone` that is called instead, and no
    message arrives any more.
    """

    def __init__(
        self, broker: Broker, stream: str, consumer: str, on_delivery: OnDelivery, on_gone: OnGone | None = None
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._consumer = consumer
        self._on_delivery = on_delivery
        self._on_gone = on_gone
        self._wanted = 0
        self._expiries: deque[float] = deque()  # of the requests that the server has, oldest first
        self._last_seq = 0
        self._heard_s = 0.0
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._losses = broker.connection.losses
        self._refused = False
        self._refusals = 0  # in a row
        self._closed = False
        self._asking: list[asyncio.Task[None]] = []
        self._feeding: list[asyncio.Task[None]] = []
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._forget: Callable[[], None] = lambda: None

    @property
    def outstanding(self) -> int:
        """Messages asked for that have not arrived."""
        return self._wanted

    async def open(self) -> None:
        """Subscribe. No message comes before `request`."""
        await self._listen()
        self._forget = self._broker.connection.when_reconnected(self._changed.set)
        self._asking = [asyncio.create_task(self._ask())]
        self._feeding = [asyncio.create_task(self._feed())]

    def request(self, count: int) -> None:
        """Ask for `count` more messages."""
        self._wanted += max(0, count)
        connection = self._broker.connection
        if self._subscription is None or self._refused or self._losses != connection.losses or not self._asking:
            self._changed.set()
            return
        try:
            self._ask_for_wanted(connection)  # at once: the task that asks would be woken for it
        except Away:
            self._changed.set()

    def withdraw(self) -> None:
        """Withdraw all requests, so that other workers get the messages. Messages already sent still arrive.

        Not for readers: the broker does not deliver their messages again.
        """
        if self._wanted > 0:
            self._leave_inbox()
            self._wanted = 0

    async def close(self) -> None:
        """Request nothing more, and hand back messages that arrive late. `on_delivery` settles those it has."""
        self._closed = True
        self._forget()
        for task in self._asking:
            task.cancel()
        if self._subscription is not None:
            # a reader's messages have no lease
            linger_s = 0.0 if self._broker.is_reader(self._stream, self._consumer) else CLOSING_LINGER_S
            await self._broker.connection.unsubscribe(self._subscription, CLOSE_S, linger_s)
        while not self._arrived.empty():
            late = self._arrived.get_nowait()
            assert late is not None
            await late.release()
        self._arrived.put_nowait(None)
        if self._feeding:
            _, stuck = await asyncio.wait(self._feeding, timeout=CLOSE_S)
            for task in stuck:
                task.cancel()
        await asyncio.gather(*self._asking, *self._feeding, return_exceptions=True)

    def _leave_inbox(self) -> None:
        """Unsubscribe: the server drops requests whose inbox has no subscriber."""
        self._expiries.clear()
        if self._subscription is None:
            return
        self._broker.connection.nc.leave(self._subscription)
        self._subscription = None

    async def _listen(self) -> None:
        nc = self._broker.connection.nc
        inbox = self._inbox = nc.new_inbox()

        self._subscription = await nc.subscribe_now(inbox, lambda message: self._on_message(message, inbox))

    def _on_message(self, message: Msg, inbox: str) -> None:
        asked = inbox == self._inbox and self._subscription is not None  # otherwise its request was withdrawn
        status = "" if message.reply else headers_of(message).get(STATUS, "")
        if asked:
            self._heard_s = asyncio.get_running_loop().time()
        if status == "100":
            return  # a heartbeat
        if not message.reply:
            if asked and self._expiries:
                self._expiries.popleft()
            # 408: it expired. Any other: the server recovers, the consumer is gone, too many requests ...
            self._refused = self._refused or (asked and status != "408")
            self._changed.set()
            return
        try:
            delivery = Delivery(self._broker, message)
        except (ValueError, IndexError):
            return  # not from a consumer: any client may publish to an inbox
        reader = self._broker.is_reader(self._stream, self._consumer)
        if (delivery.stream, delivery.consumer) != (self._stream, self._consumer) or (reader and not asked):
            return  # from an earlier reader: the one that was created again sends it too
        if asked and self._expiries:
            self._expiries.popleft()
        if delivery.stream_seq <= self._last_seq and reader:
            self._changed.set()  # the reader was created again, and the earlier one had sent it already
            return
        self._last_seq = delivery.stream_seq
        self._wanted -= asked
        self._refusals = 0
        self._arrived.put_nowait(delivery)

    async def _feed(self) -> None:
        while (delivery := await self._arrived.get()) is not None:
            try:
                await (delivery.release() if self._closed else self._on_delivery(delivery))
            except Exception as error:
                _log(f"taking a message from {self._stream} failed", error)

    async def _ask(self) -> None:
        """Keep as many requests at the server as messages are wanted."""
        connection = self._broker.connection
        while True:
            self._changed.clear()
            try:
                if self._losses != connection.losses or await self._silent(connection):
                    await self._start_over(connection)
                elif self._refused:
                    await self._pause()
                    if self._broker.is_reader(self._stream, self._consumer):  # it may be gone
                        await self._start_over(connection)
                while len(self._expiries) < self._wanted and self._subscription is None:
                    await self._listen()  # what was wanted may be withdrawn by then
                self._ask_for_wanted(connection)
            except Away:
                pass  # the reconnect sets `_changed`
            except BrokerError as error:
                if connection.closed:
                    return  # its other users raise the error
                if isinstance(error, StreamGone) and self._on_gone is not None:
                    await self._on_gone(error)
                    return
                if self._refusals.bit_count() <= 1 and not isinstance(error, StreamGone):  # 1st, 2nd, 3rd, 5th ...
                    _log(f"asking {self._stream} for messages failed", error)
                await self._pause()
                self._refused = True
                self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_late_s()):
                    await self._changed.wait()

    async def _pause(self) -> None:
        """Wait after a refusal; the pause grows with each one in a row."""
        await asyncio.sleep(min(LONGEST_REFUSED_S, REFUSED_S * 2 ** min(self._refusals, 10)))
        self._refused = False
        self._refusals += 1

    async def _silent(self, connection: Connection) -> bool:
        """Whether the server has not confirmed our requests for `SILENT_S`."""
        if not self._expiries or self._heard_s + SILENT_S > asyncio.get_running_loop().time():
            return False
        await connection.flush()  # its answer may have come while this process was busy
        return self._heard_s + SILENT_S <= asyncio.get_running_loop().time()

    async def _start_over(self, connection: Connection) -> None:
        """Make requests anew after the connection broke or the consumer's leader died: all earlier ones are lost."""
        await connection.wait_connected()
        losses = connection.losses
        self._leave_inbox()  # first: requests of a deleted reader get refusals, which must not count
        last_seq = await self._broker.resume_reader(self._stream, self._consumer, self._last_seq)
        if last_seq < self._last_seq and self._on_gone is not None:
            raise StreamGone(self._stream)
        self._last_seq = last_seq
        self._losses = losses

    def _ask_for_wanted(self, connection: Connection) -> None:
        """One request a message, so that every answer, a message or a status, ends exactly one request."""
        now_s = asyncio.get_running_loop().time()
        while self._expiries and self._expiries[0] + LATE_S <= now_s:
            self._expiries.popleft()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        if not self._expiries:
            self._heard_s = now_s
        while len(self._expiries) < self._wanted:
            self._expiries.append(now_s + EXPIRES_S)
            newest = len(self._expiries) >= self._wanted  # requests are served in order, so it stands the longest
            connection.send(subject, _NEWEST if newest else _NEXT, self._inbox)

    def _until_late_s(self) -> float:
        """Seconds until the oldest standing request counts as lost, or all do, or would do if one were made now."""
        if not self._expiries:
            return SILENT_S
        return min(self._expiries[0] + LATE_S, self._heard_s + SILENT_S) - asyncio.get_running_loop().time()


def _log(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})


_REQUEST = {"batch": 1, "expires": int(EXPIRES_S * 1e9)}
_NEXT = json.dumps(_REQUEST).encode()
_NEWEST = json.dumps(_REQUEST | {"idle_heartbeat": int(HEARTBEAT_S * 1e9)}).encode()
