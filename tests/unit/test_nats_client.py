"""Headers of messages, read as nats-py reads them, and payloads, with fewer copies."""

import asyncio
import tracemalloc
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from pipelines.nats_client import NatsClient
from pipelines.nats_parser import Parser, _Reader
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
    with patch("pipelines.nats_parser._LARGE_BYTES", large):
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
    reader = _Reader(parser, 1 << 16)
    reader.feed_data(b"MSG a 1 4000000\r\n")
    await parser.parse(await reader.read())
    for _ in range(3):
        reader.feed_data(bytes(1000))
    reader.feed_eof()
    async with asyncio.timeout(30):
        while not reader.at_eof():
            await parser.parse(await reader.read())
    assert parser.missing == 4_000_002 - 3000
