"""Pulls messages by credit: requests as many as there is room for; each is settled exactly once."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pipelines.broker import Broker
from pipelines.claims import claim_of
from pipelines.connection import STATUS, Away, Connection, NoResponders, headers_of
from pipelines.jetstream import StreamGone
from schemas.errors import BrokerError
from schemas.wire import Buffer

EXPIRES_S = 30.0  # how long a request stands at the server
LATE_S = 2.0  # a request without an answer this long after it expired is lost
HEARTBEAT_S = 3.0  # the server confirms the newest request this often
SILENT_S = 2.5 * HEARTBEAT_S  # without an answer for this long, our requests are lost (with a cluster's leader)
CLOSE_S = 2.0  # for messages on their way, and for an `on_delivery` that runs
LINGER_S = 1.0  # after a withdrawal, for messages that the server has just sent
CLOSING_LINGER_S = 0.05
REFUSED_S = 0.25  # pause after a request that the server refused, doubled each time
LONGEST_REFUSED_S = 4.0  # a publisher may create a deleted stream again


class Delivery:
    """One message, leased to us until it is settled or silent for `ack_wait_s`.

    `deliveries` counts them, this one included; `pending` is how many messages wait behind it in its consumer.
    `content` are the message's own bytes: the body, or for a claim check its size in decimal. Exactly one of `ack`,
    `retry`, `release` and `terminate` ends it. A reader's deliveries need no settling.
    """

    __slots__ = (
        "_blob",
        "_body",
        "_broker",
        "_reply",
        "consumer",
        "content",
        "deliveries",
        "headers",
        "nbytes",
        "pending",
        "settled",
        "stream",
        "stream_seq",
        "subject",
    )

    def __init__(self, broker: Broker, message: Msg) -> None:
        """Raises ValueError when a message did not come from a consumer: acknowledgements go to its reply subject."""
        self._broker = broker
        self._reply = message.reply
        # $JS.ACK.[domain.account.]stream.consumer.deliveries.stream seq.consumer seq.time.pending[.random]
        tokens = message.reply.split(".")
        if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9:
            raise ValueError(f"{message.reply} acknowledges no delivery")
        self.stream, self.consumer, *counts = tokens[2:] if len(tokens) == 9 else tokens[4:]
        self.deliveries = int(counts[0])
        self.stream_seq = int(counts[1])
        self.pending = int(counts[4])
        self.subject: str = message.subject
        self.headers: dict[str, str] = headers_of(message)
        self.settled = False
        self._blob = claim_of(self.subject, self.headers)
        self.content: bytes = message.data
        self._body: Buffer | None = None if self._blob else self.content
        self.nbytes = int(message.data) if self._blob and message.data.isdigit() else len(message.data)

    async def load(self) -> Buffer:
        """The body; that of a claim check is fetched once. Raises StoreError when the object is gone."""
        if self._body is None:
            from pipelines.blobs import get_blob

            self._body = await get_blob(self._broker, self._broker.names.blobs, self._blob)
        return self._body

    async def ack(self) -> None:
        """Done: all it led to is durable."""
        await self._settle_with_blob(b"+ACK")

    async def terminate(self, reason: str) -> None:
        """It will never work; `reason` goes into the server's advisory."""
        await self._settle_with_blob(b"+TERM " + reason.replace("\n", " ").encode())

    async def retry(self, delay_s: float) -> None:
        """Have it delivered again after `delay_s`."""
        await self._settle(b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

    async def release(self) -> None:
        """Hand it back for others to do now."""
        await self._settle(b"-NAK")

    async def progress(self) -> None:
        """Renew the lease for another `ack_wait_s`."""
        assert not self.settled, f"{self.subject} {self.stream_seq} is settled already"
        if self._broker.connection.connected:
            await self._broker.connection.settle(self._reply, b"+WPI")

    def _mark_settled(self) -> None:
        assert not self.settled, f"{self.subject} {self.stream_seq} is settled already"
        self.settled = True

    async def _settle(self, verdict: bytes) -> None:
        self._mark_settled()
        await self._broker.connection.settle(self._reply, verdict)

    async def _settle_with_blob(self, verdict: bytes) -> None:
        if not self._blob:
            await self._settle(verdict)
            return
        self._mark_settled()
        try:
            await self._broker.connection.request(self._reply, verdict)
        except (Away, NoResponders):
            return  # it may be delivered again and needs its object then; otherwise a sweep removes the object
        from pipelines.blobs import discard_claims

        await discard_claims(self._broker, [self._blob])


OnDelivery = Callable[[Delivery], Awaitable[None]]
OnGone = Callable[[StreamGone], Awaitable[None]]


class Pull:
    """Takes messages from one consumer: `open`, then `request` as many as there is room for, then `close`.

    Every message asked for, and not withdrawn, arrives at `on_delivery` sooner or later, one after the other: requests
    that expire, that the server turns down, or that are lost with the connection are made anew. An exception of
    `on_delivery` goes to the loop's exception handler, and its message is delivered again when its lease ends.

    A stream that is deleted is waited for: its messages arrive when it is created again. With `on_gone` that is called
    instead, and no message arrives any more.
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
        self._expiries: deque[float] = deque()  # of the requests that stand at the server, oldest first
        self._last_seq = 0
        self._heard_s = 0.0
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._losses = broker.connection.losses
        self._refused = False
        self._refusals = 0  # one after the other
        self._closed = False
        self._asking: list[asyncio.Task[None]] = []
        self._feeding: list[asyncio.Task[None]] = []
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._forget: Callable[[], None] = lambda: None

    @property
    def outstanding(self) -> int:
        """Messages asked for that have not arrived."""
        return self._wanted

    async def open(self) -> None:
        """Listen; nothing comes before `request`."""
        await self._listen()
        self._forget = self._broker.connection.when_reconnected(self._changed.set)
        self._asking = [asyncio.create_task(self._ask())]
        self._feeding = [asyncio.create_task(self._feed())]

    def request(self, count: int) -> None:
        """Ask for `count` more messages."""
        self._wanted += max(0, count)
        self._changed.set()

    def withdraw(self) -> None:
        """Take back what was asked for, so that others get it; what is on its way to us still arrives.

        Not for readers: the broker does not give their messages out again.
        """
        if self._wanted > 0:
            self._leave_inbox()
            self._wanted = 0

    async def close(self) -> None:
        """Request nothing more and hand back what arrives too late; `on_delivery` settles what it has."""
        self._closed = True
        self._forget()
        for task in self._asking:
            task.cancel()
        if self._subscription is not None:
            # a reader's messages have no lease
            linger_s = 0.0 if self._broker.is_reader(self._stream, self._consumer) else CLOSING_LINGER_S
            await self._broker.connection.unsubscribe(self._subscription, CLOSE_S, linger_s)
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
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
        leaving = asyncio.create_task(self._broker.connection.unsubscribe(self._subscription, CLOSE_S, LINGER_S))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._subscription = None

    async def _listen(self) -> None:
        nc = self._broker.connection.nc
        inbox = self._inbox = nc.new_inbox()

        async def on_message(message: Msg) -> None:
            await self._on_message(message, inbox)

        self._subscription = await nc.subscribe(inbox, cb=on_message, pending_bytes_limit=0)

    async def _on_message(self, message: Msg, inbox: str) -> None:
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
            return  # any client may publish to an inbox
        reader = self._broker.is_reader(self._stream, self._consumer)
        if (delivery.stream, delivery.consumer) != (self._stream, self._consumer) or (reader and not asked):
            return  # a reader that was made anew sends it again
        if asked and self._expiries:
            self._expiries.popleft()
        if delivery.stream_seq <= self._last_seq and reader:
            self._changed.set()  # the reader was made anew, and the old one had sent it already
            return
        self._last_seq = delivery.stream_seq
        self._wanted -= asked
        self._refusals = 0
        if self._closed:
            await delivery.release()
        else:
            self._arrived.put_nowait(delivery)

    async def _feed(self) -> None:
        while (delivery := await self._arrived.get()) is not None:
            try:
                await (delivery.release() if self._closed else self._on_delivery(delivery))
            except Exception as error:
                _log(f"taking a message from {self._stream} failed", error)

    async def _ask(self) -> None:
        """Keep as many requests standing at the server as messages are wanted."""
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
                await self._ask_for_wanted(connection)
            except Away:
                pass  # the reconnect wakes us
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
        """Whether requests stand that the server has not confirmed for too long."""
        if not self._expiries or self._heard_s + SILENT_S > asyncio.get_running_loop().time():
            return False
        await connection.flush()  # its answer may have come while this process was busy
        return self._heard_s + SILENT_S <= asyncio.get_running_loop().time()

    async def _start_over(self, connection: Connection) -> None:
        """Make requests anew after the connection broke or the consumer's leader died: all earlier ones are lost."""
        await connection.wait_connected()
        losses = connection.losses
        self._leave_inbox()  # first: the refusals that requests get when their reader is deleted say nothing new
        last_seq = await self._broker.resume_reader(self._stream, self._consumer, self._last_seq)
        if last_seq < self._last_seq and self._on_gone is not None:
            raise StreamGone(self._stream)
        self._last_seq = last_seq
        self._losses = losses

    async def _ask_for_wanted(self, connection: Connection) -> None:
        """One request a message, so that every answer, a message or a status, ends exactly one request."""
        now_s = asyncio.get_running_loop().time()
        while self._expiries and self._expiries[0] + LATE_S <= now_s:
            self._expiries.popleft()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        if not self._expiries:
            self._heard_s = now_s
        while len(self._expiries) < self._wanted:
            if self._subscription is None:
                await self._listen()
                continue  # what was wanted may be withdrawn by now
            self._expiries.append(now_s + EXPIRES_S)
            newest = len(self._expiries) >= self._wanted  # requests are served in order, so it stands the longest
            await connection.send(subject, _NEWEST if newest else _NEXT, self._inbox)

    def _until_late_s(self) -> float | None:
        """Seconds until the oldest standing request counts as lost, or all of them do."""
        if not self._expiries:
            return None
        return min(self._expiries[0] + LATE_S, self._heard_s + SILENT_S) - asyncio.get_running_loop().time()


def _log(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})


_REQUEST = {"batch": 1, "expires": int(EXPIRES_S * 1e9)}
_NEXT = json.dumps(_REQUEST).encode()
_NEWEST = json.dumps(_REQUEST | {"idle_heartbeat": int(HEARTBEAT_S * 1e9)}).encode()
