"""The chunks of a png. Some are removed: FFmpeg unpacks them into memory, up to a thousandfold and without a limit, and
Pillow refuses them.
"""

from collections.abc import Iterator

from engines.media.read_at import ReadAt, reader
from schemas.wire import Buffer

_PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")  # compressed texts and the colour profile; rigflow reads neither
_SIGNATURE_BYTES = 8


def chunks(read: ReadAt) -> Iterator[tuple[bytes, int, int]]:
    """`(kind, offset, end)` of each chunk; the last one may end behind the file. Source: PNG (ISO 15948), 5.3."""
    at = _SIGNATURE_BYTES
    while len(head := read(at, 8)) == 8:
        end = at + 12 + int.from_bytes(head[:4], "big")
        yield head[4:], at, end
        at = end


def has_chunk(read: ReadAt, kind: bytes) -> bool:
    """Return whether a png has a chunk of that kind before its pixels."""
    for found, _, _ in chunks(read):
        if found in (kind, b"IDAT", b"IEND"):
            return found == kind
    return False


def without_packed_chunks(data: Buffer) -> bytes:
    """The png without its compressed texts and colour profile."""
    content = bytes(data)
    if not any(kind in content for kind in _PACKED_CHUNKS):
        return content
    kept = [content[at:end] for kind, at, end in chunks(reader(content)) if kind not in _PACKED_CHUNKS]
    return b"".join([content[:_SIGNATURE_BYTES], *kept])
