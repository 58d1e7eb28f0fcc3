"""Headers of messages, read as nats-py reads them, and payloads, with fewer copies."""

import asyncio
import itertools
import tracemalloc
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from pipelines.nats_arrivals import ArrivalProtocol
from pipelines.nats_client import NatsClient
from pipelines.nats_parser import Parser, Reader
from schemas.settings import Settings

PIECES = [b"a", b"B-1", b" ", b"\t", b"\r\n", b"\n", b":", b"\x1c", b"\xc3\xa9", b"\xff", b"\0"]
BYTES = st.lists(st.sampled_from(PIECES))


def test_headers() -> None:
    raw = b"Nats-Msg-Id: a/1\r\nX:y: z \r\nX:\xc3\xa9\xff\r\nno header\r\nin name: x\r\n\r\n"
    assert NatsClient._parse_header_lines(raw) == {"Nats-Msg-Id": "a/1", "X": "\u00e9\ufffd"}


@given(BYTES)
def test_they_are_those_that_nats_py_reads_but_for_those_without_a_name(given: list[bytes]) -> None:
    raw = b"".join(given)
    theirs = Client._parse_header_lines(raw)
    assert NatsClient._parse_header_lines(raw) == {name: value for name, value in theirs.items() if name}


class Receiving(NatsClient):
    """Keeps the messages that it parses."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.messages: list[tuple[bytes, bytes | None]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if self.takes_now(sid):
            self.deliver(sid, subject, reply, data, headers)
        else:
            self.messages.append((data, headers))

    async def take(self, wire: bytes, nbytes: int) -> None:
        for begin in range(0, len(wire), nbytes):
            await self._ps.parse(wire[begin : begin + nbytes])


@given(st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 60), st.sampled_from((1, 20, 1 << 16)))
def test_messages_are_the_same_however_they_are_cut(payloads: list[bytes], nbytes: int, large: int) -> None:
    head, wire = b"NATS/1.0\r\n\r\n", b""
    for payload in payloads:
        wire += b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload)
        wire += b"HMSG b 2 c %d %d\r\n%b%b\r\n" % (len(head), len(head) + len(payload), head, payload)
    client = Receiving()
    with patch("pipelines.nats_parser.LARGE_BYTES", large):
        asyncio.run(client.take(wire, nbytes))
    assert client.messages == [each for payload in payloads for each in ((payload, None), (payload, head))]
    assert all(type(payload) is bytes for payload, _ in client.messages)


def test_a_payload_is_copied_once_from_what_was_read() -> None:
    payload = bytes(4 << 20)
    wire, client = b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload), Receiving()
    tracemalloc.start()
    try:
        asyncio.run(client.take(wire, 1 << 18))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.messages == [(payload, None)]
    assert most < 2.3 * len(payload)  # nats-py holds it three times: the pieces that came, its buffer, and the payload


def test_headers_that_are_longer_than_their_message_end_no_reading() -> None:
    body, client = bytes(100_000), Receiving()
    asyncio.run(client.take(b"HMSG a 1 %d %d\r\n%b\r\n" % (len(body) + 9, len(body), body), 1 << 15))
    assert client.messages == [(b"", body)]


async def test_a_connection_that_ends_within_a_large_payload_is_read_to_its_end() -> None:
    parser = Parser(Receiving())
    reader = Reader(parser, 1 << 16)
    reader.feed_data(b"MSG a 1 4000000\r\n")
    await parser.parse(await reader.read())
    for _ in range(3):
        reader.feed_data(bytes(1000))
    reader.feed_eof()
    async with asyncio.timeout(30):
        while not reader.at_eof():
            await parser.parse(await reader.read())
    assert parser.missing == 4_000_002 - 3000


class Taking(Receiving):
    """Takes the messages of subscription 1 as they arrive; those of 2 are parsed."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[bytes, bytes]] = []

    def takes_now(self, sid: int) -> bool:
        return sid == 1

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.taken.append((data, headers))

    async def arrive(self, wire: bytes, cuts: list[int]) -> None:
        """Have bytes arrive in pieces of these sizes, by turns, while the task that reads runs after each or not."""
        reader = Reader(self._parser, 1 << 16)
        inner = asyncio.StreamReaderProtocol(reader)
        protocol = ArrivalProtocol(inner, reader, self._parser, 1 << 16)
        reader.feed_data(b"+OK\r\n")
        reading, at = asyncio.create_task(self._read(reader)), 0
        await asyncio.sleep(0)
        for number in itertools.count():
            room = protocol.get_buffer(-1)
            piece = wire[at : at + min(len(room), abs(cuts[number % len(cuts)]))]
            if not piece:
                break
            room[: len(piece)] = piece
            protocol.buffer_updated(len(piece))
            at += len(piece)
            if cuts[number % len(cuts)] > 0:
                await asyncio.sleep(0)
        reader.feed_eof()
        await reading

    async def _read(self, reader: Reader) -> None:
        while not reader.at_eof():
            await self._parser.parse(await reader.read())


CUTS = st.lists(st.integers(1, 70) | st.integers(-70, -1), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(1, 2), st.binary(max_size=90)), max_size=8), CUTS, st.sampled_from((1, 20, 999)))
def test_messages_that_are_taken_as_they_arrive_are_the_same(
    sent: list[tuple[int, bytes]], cuts: list[int], large: int
) -> None:
    head, wire = b"NATS/1.0\r\nA: b\r\n\r\n", b""
    for sid, body in sent:
        wire += b"MSG a %d %d\r\n%b\r\n" % (sid, len(body), body)
        wire += b"+OK\r\nHMSG b %d c %d %d\r\n%b%b\r\n" % (sid, len(head), len(head) + len(body), head, body)
    client = Taking()
    with patch("pipelines.nats_parser.LARGE_BYTES", large), patch("pipelines.nats_arrivals.LARGE_BYTES", large):
        asyncio.run(client.arrive(wire, cuts))
    for sid, got in ((1, client.taken), (2, client.messages)):
        assert [(data, headers or b"") for data, headers in got] == [
            each for number, body in sent for each in ((body, b""), (body, head)) if number == sid
        ]
    assert all(type(data) is bytes for data, _ in client.taken)


def test_a_payload_that_is_taken_as_it_arrives_is_read_into_its_own_memory() -> None:
    payload = bytes(4 << 20)
    wire, client = b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload), Taking()
    tracemalloc.start()
    try:
        asyncio.run(client.arrive(wire, [1 << 18]))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.taken == [(payload, b"")]
    assert most < 1.3 * len(payload)


class Breaking(Receiving):
    """Its connection breaks while a message is handed over."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        await super()._process_msg(sid, subject, reply, data, headers)
        self._ps.reset()


def test_what_came_of_a_connection_that_broke_meanwhile_is_forgotten() -> None:
    body, client = bytes(100_000), Breaking()
    asyncio.run(client.take(b"MSG a 1 %d\r\n%b\r\nMSG a 1 9\r\nhalf" % (len(body), body), 1 << 15))
    assert client.messages == [(body, None)]
    assert not client._parser.buf, "the next connection begins anew"
