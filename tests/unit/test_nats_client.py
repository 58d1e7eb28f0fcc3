"""Headers of messages, read as nats-py reads them."""

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from pipelines.nats_client import NatsClient

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
