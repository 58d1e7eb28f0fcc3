"""One delivery of a message, and how it is settled."""

import json
from collections.abc import Mapping

from nats.aio.msg import Msg

from pipelines.answers import headers_of
from pipelines.blobs import discard_claims, get_blob
from pipelines.broker import Broker
from pipelines.claims import claim_of
from pipelines.inbox import Away, NoResponders
from schemas.subjects import HEADER_BLOB, HEADER_COPY, HEADER_ID
from schemas.wire import Buffer

_OF_ONE = frozenset((HEADER_ID, HEADER_BLOB, HEADER_COPY))  # headers of one message, not of its input
_HEADER_BYTES = 4  # of `: ` and the line end of one header
# a message's record in a stream of files: 22 before, 8 after, 4 for the length of the headers (`fileStoreMsgSizeRaw` in
# server/filestore.go of nats-server), and 12 for their first line `NATS/1.0` and their empty last one
_RECORD_BYTES = 46


class Delivery:
    """One message, leased to us until it is settled or silent for `ack_wait_s`.

    `deliveries` counts its deliveries, this one included; `pending` is how many messages wait in its consumer.
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

    @property
    def has_blob(self) -> bool:
        """Whether it is a claim check, whose object is deleted as it ends."""
        return bool(self._blob)

    @property
    def stored_bytes(self) -> int:
        """Bytes that it has in its stream, with subject and headers; a claim check's without its object."""
        headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in self.headers.items())
        return len(self.content) + len(self.subject) + headers + _RECORD_BYTES

    @property
    def stored_ns(self) -> int:
        """When the broker stored it, in nanoseconds since 1970."""
        tokens = self._reply.split(".")
        return int(tokens[7] if len(tokens) == 9 else tokens[9])

    async def load(self) -> Buffer:
        """The body; that of a claim check is fetched once. Raises StoreError when the object is gone."""
        if self._body is None:
            self._body = await get_blob(self._broker, self._broker.names.blobs_for(self.subject), self._blob)
            self.nbytes = len(self._body)
        return self._body

    async def publish_again(self, why: str, headers: Mapping[str, str]) -> None:
        """Put the same input into its queue once more, with an id of its own. Raises as `load` and `Broker.publish`."""
        identity = self.headers.get(HEADER_ID, f"{self.stream}/{self.stream_seq}")
        kept = {name: value for name, value in self.headers.items() if name not in _OF_ONE}
        await self._broker.publish(self.subject, await self.load(), f"{identity}/{why}", {**kept, **headers})

    async def ack(self) -> None:
        """Acknowledge it: everything that was made of it is stored."""
        await self._settle_with_blob(b"+ACK")

    async def terminate(self, reason: str) -> None:
        """End it without success; `reason` goes into the server's advisory."""
        await self._settle_with_blob(b"+TERM " + reason.replace("\n", " ").encode())

    async def retry(self, delay_s: float) -> None:
        """Have it delivered again after `delay_s`."""
        await self._settle(b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

    async def release(self) -> None:
        """Hand it back: another worker gets it at once."""
        await self._settle(b"-NAK")

    async def progress(self) -> None:
        """Renew the lease for another `ack_wait_s`."""
        assert not self.settled, f"{self.subject} {self.stream_seq} is settled already"
        if self._broker.connection.connected:
            self._broker.connection.settle(self._reply, b"+WPI")

    def _mark_settled(self) -> None:
        assert not self.settled, f"{self.subject} {self.stream_seq} is settled already"
        self.settled = True

    async def _settle(self, verdict: bytes) -> None:
        self._mark_settled()
        self._broker.connection.settle(self._reply, verdict)

    async def _settle_with_blob(self, verdict: bytes) -> None:
        if not self._blob:
            await self._settle(verdict)
            return
        self._mark_settled()
        try:
            await self._broker.connection.request(self._reply, verdict)
        except (Away, NoResponders):
            return  # it may be delivered again, and then it needs its object; otherwise a sweep removes the object
        await discard_claims(self._broker, self._broker.names.blobs_for(self.subject), [self._blob])
