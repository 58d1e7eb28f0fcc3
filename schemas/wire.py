"""A message body: one msgpack array `[meta, buffer, ...]`.

`meta` is a map that a pydantic model validates, the buffers are raw bytes. Any msgpack library reads it. Buffers go out
as they are, piece by piece, and are views into the body on the way in.

A body may hold any bytes: `unpack` bounds what it reads before it allocates, and raises one error class.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgpack

from schemas.errors import MessageError
from schemas.text import size

Buffer: TypeAlias = bytes | bytearray | memoryview
META_BYTES = 16 << 20  # of the meta map; the broker's largest message limits buffers
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack's three sizes of bytes
_ARRAY_ITEMS = 1 << 20  # in meta: msgpack allocates the length that an array's header states


class Pieces:
    """Bytes in several pieces, for example the packets of a segment; `bytes()` joins them, which copies them."""

    __slots__ = ("nbytes", "pieces")

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self.pieces = tuple(piece if isinstance(piece, bytes) else memoryview(piece).cast("B") for piece in pieces)
        self.nbytes = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self.nbytes

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pieces) and bytes(self) == bytes(other)


def pack(meta: dict[str, Any], buffers: Sequence[Buffer | Pieces] = ()) -> bytes:
    """Return one msgpack array of `meta` and `buffers`; a buffer must be contiguous bytes, or pieces of them."""
    return bytes(pack_pieces(meta, buffers))


def pack_pieces(meta: dict[str, Any], buffers: Sequence[Buffer | Pieces] = ()) -> Pieces:
    """Return what `pack` returns, without a copy of the buffers."""
    packer = msgpack.Packer(use_bin_type=True)
    pieces: list[Buffer] = [packer.pack_array_header(1 + len(buffers)) + packer.pack(meta)]
    for buffer in buffers:
        parts = buffer if isinstance(buffer, Pieces) else Pieces((buffer,))
        pieces += (_bin_header(parts.nbytes), *parts.pieces)
    return Pieces(pieces)


def unpack(body: Buffer) -> tuple[dict[str, Any], list[memoryview]]:
    """Return `(meta, buffers)` of a body; the buffers are views into it. Raises MessageError if it is not a message."""
    try:
        return _unpack(memoryview(body))
    except Exception as error:  # errors of msgpack, UnicodeDecodeError, MemoryError ...
        raise MessageError(f"not a rigflow message: {str(error) or type(error).__name__}") from error


def _unpack(view: memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    nbytes = len(view)
    most = min(nbytes, META_BYTES)
    # the meta map is small compared with the buffers: read only its part of the body
    window = 1 << 14
    while True:
        reader = msgpack.Unpacker(max_buffer_size=most, max_array_len=_ARRAY_ITEMS, max_ext_len=0)
        reader.feed(view[: min(window, most)])
        try:
            count = reader.read_array_header()
            meta = reader.unpack()
            break
        except msgpack.OutOfData:
            if window >= most:
                what = "it is truncated" if most == nbytes else f"its meta map is larger than {size(META_BYTES)}"
                raise ValueError(what) from None
            window *= 8
    if not isinstance(meta, dict):
        raise ValueError("its first element is not a map")
    offset = reader.tell()
    buffers = []
    for _ in range(count - 1):
        start = offset + 1 + _LENGTH_BYTES.get(view[offset], nbytes) if offset < nbytes else nbytes + 1
        if start > nbytes:
            raise ValueError(f"no bytes at offset {offset}")
        stop = start + int.from_bytes(view[offset + 1 : start], "big")
        if stop > nbytes:
            raise ValueError("it is truncated")
        buffers.append(view[start:stop])
        offset = stop
    if offset != nbytes:
        raise ValueError(f"{nbytes - offset} bytes follow its last buffer")
    return meta, buffers


def _bin_header(length: int) -> bytes:
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    if length < 1 << 32:
        return b"\xc6" + length.to_bytes(4, "big")
    raise ValueError(f"a buffer of {length} bytes is too large for one message")
