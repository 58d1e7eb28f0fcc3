"""A body is readable by any msgpack library, and what is no body is said to be none."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.arrays import ArraySpec
from schemas.errors import MessageError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.messages import decode
from schemas.segments import Fragment
from schemas.wire import Pieces, pack, pack_pieces, unpack

BYTES = st.integers(0, 70_000).map(lambda nbytes: (b"odd" * nbytes)[:nbytes])  # msgpack has three sizes of them


@given(
    meta=st.dictionaries(st.text(max_size=8), st.integers(-(2**40), 2**40) | st.text(max_size=30), max_size=6),
    buffers=st.lists(st.binary(max_size=300) | BYTES, max_size=4),
)
def test_a_body_comes_back_and_is_plain_msgpack(meta: dict[str, object], buffers: list[bytes]) -> None:
    body = pack(meta, buffers)
    assert msgpack.unpackb(body) == [meta, *buffers]
    found, views = unpack(body)
    assert found == meta
    assert [bytes(view) for view in views] == buffers


@given(pieces=st.lists(st.binary(max_size=300) | BYTES, max_size=6))
def test_a_buffer_in_pieces_is_that_of_the_joined_bytes(pieces: list[bytes]) -> None:
    parts = Pieces([bytearray(piece) for piece in pieces])
    assert (len(parts), bytes(parts)) == (sum(map(len, pieces)), b"".join(pieces))
    made = pack_pieces({"a": 1}, [parts, b"tail"])
    assert bytes(made) == pack({"a": 1}, [b"".join(pieces), b"tail"])
    assert len(made) == len(bytes(made))


def test_the_pieces_of_a_body_are_the_buffers_themselves() -> None:
    packets = [b"x" * 1_000_000, b"y" * 2_000_000]
    made = pack_pieces({"a": 1}, [Pieces(packets)])
    assert {id(packet) for packet in packets} <= {id(piece) for piece in made.pieces}


def test_buffers_are_views_into_the_body() -> None:
    body = pack({"a": 1}, [b"x" * 1_000_000])
    _, (view,) = unpack(body)
    assert view.obj is body


def test_a_meta_map_larger_than_the_first_window_is_read() -> None:
    meta = {"words": ["word"] * 20_000}
    assert unpack(pack(meta, [b"tail"]))[0] == meta


@pytest.mark.parametrize("body", [b"", b"\x00", b"not msgpack", msgpack.packb([1, 2]), msgpack.packb({"a": 1})])
def test_what_is_no_message_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(MessageError, match=r"message|map"):
        unpack(body)


@given(cut=st.integers(1, 400))
def test_a_truncated_body_is_refused(cut: int) -> None:
    body = pack({"a": "b" * 50}, [b"x" * 300, b"y" * 100])
    with pytest.raises(MessageError, match="message"):
        unpack(body[:-cut])


def test_a_message_keeps_its_type_and_its_ids() -> None:
    key = Key(job=JobRef(id="j", pipeline="p", revision="r"), segment=3, part=2)
    head = {"head": ArraySpec(dtype="|u1", shape=(5,), buffer=0)}
    body = Fragment(key=key, media=MediaInfo(kind="video"), container="mp4", arrays=head).encode([b"sound"])
    message, buffers = decode(body)
    assert isinstance(message, Fragment)
    assert message.key.message_id("infer") == "main/j/r/3/2/infer"
    assert bytes(buffers[0]) == b"sound"
