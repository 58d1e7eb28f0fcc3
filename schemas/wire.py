"""A message body: one msgpack array `[meta, buffer, ...]`.

`meta` is a map that a pydantic model validates, the buffers are raw bytes. Any msgpack library reads it. Buffers are
joined once on the way out and are views into the body on the way in: pixels are copied once, not four times.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgpack

Buffer: TypeAlias = bytes | bytearray | memoryview


def pack(meta: dict[str, Any], buffers: Sequence[Buffer] = ()) -> bytes:
    """One msgpack array of `meta` and `buffers`; a buffer must be contiguous bytes."""
    packer = msgpack.Packer(use_bin_type=True)
    pieces: list[Buffer] = [packer.pack_array_header(1 + len(buffers)), packer.pack(meta)]
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        pieces += (_bin_header(view.nbytes), view)
    return b"".join(pieces)


def unpack(body: Buffer) -> tuple[dict[str, Any], list[memoryview]]:
    """`(meta, buffers)` of a body; the buffers are views into it. Raises ValueError when it is not a message."""
    view = memoryview(body)
    try:
        return _unpack(view)
    except (msgpack.UnpackException, ValueError, IndexError) as error:
        raise ValueError(f"not a rigflow message: {error}") from error


def _unpack(view: memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    reader = msgpack.Unpacker(max_buffer_size=len(view))
    # the meta map is small beside the buffers: feed just enough of the body to read it
    window = 1 << 14
    while True:
        reader.feed(view[:window])
        try:
            count = reader.read_array_header()
            meta = reader.unpack()
            break
        except msgpack.OutOfData:
            if window >= len(view):
                raise
            window *= 8
            reader = msgpack.Unpacker(max_buffer_size=len(view))
    if not isinstance(meta, dict):
        raise ValueError("its first element is not a map")
    offset = reader.tell()
    buffers = []
    for _ in range(count - 1):
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4}.get(view[offset])
        if width is None:
            raise ValueError(f"no bytes at offset {offset}")
        length = int.from_bytes(view[offset + 1 : offset + 1 + width], "big")
        offset += 1 + width
        if offset + length > len(view):
            raise ValueError("it is truncated")
        buffers.append(view[offset : offset + length])
        offset += length
    return meta, buffers


def _bin_header(length: int) -> bytes:
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    if length < 1 << 32:
        return b"\xc6" + length.to_bytes(4, "big")
    raise ValueError(f"a buffer of {length} bytes is too large for one message")
