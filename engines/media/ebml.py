"""Reads the length that a Matroska or WebM file states, and whether its elements follow each other without a hole.

Sources: RFC 8794, 4 to 6 (EBML); RFC 9559, 4.5 (Segment) and 5.1.3 (Cluster).
"""

from engines.media.read_at import ReadAt
from schemas.wire import Buffer

_EBML, _SEGMENT, _CLUSTER, _GROUP = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xa0"
_BLOCKS = (b"\xa1", b"\xa3")  # Block, SimpleBlock
_HEADER_BYTES = 12  # the most of an element's identifier and size


def declared_length(head: Buffer) -> int | None:
    """Return the bytes of the whole file by its first bytes; None if they do not state it (live recordings)."""
    data = bytes(head)
    if not data.startswith(_EBML):
        return None
    size, at = _size(data, len(_EBML))
    at += size or 0
    if data[at : at + len(_SEGMENT)] != _SEGMENT:
        return None
    size, at = _size(data, at + len(_SEGMENT))
    return None if size is None else at + size


def leads_to(read: ReadAt, start: int, end: int) -> bool:
    """Return whether elements lead from the block whose content is at `start` to the one whose content is at `end`.

    Identifiers are not checked: in bytes that are damaged, sizes lead elsewhere.
    """
    at = _block_at(read, start)
    while at is not None and at < end:
        header = read(at, _HEADER_BYTES)
        width = 9 - header[0].bit_length() if header and header[0] else 0
        if not 1 <= width <= 4:
            return False
        size, content = _size(header, width)
        if at + content == end:
            return True
        if header[:width] in (_SEGMENT, _CLUSTER, _GROUP):
            size = 0  # the elements in it come next
        at = None if size is None else at + content + size
    return False


def _block_at(read: ReadAt, content: int) -> int | None:
    """Return where the block begins whose content is at that offset; None if there is none."""
    for width in range(1, _HEADER_BYTES - 3):
        at = content - width - 1
        header = read(at, width + 1) if at > 0 else b""
        if header[:1] in _BLOCKS and _size(header, 1)[1] == width + 1:
            return at
    return None


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """Return an element's size (None if it is unknown or absent) and the offset of the element's content."""
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 0
    coded = data[at : at + width]
    most = (1 << 7 * width) - 1
    size = int.from_bytes(coded, "big") & most
    return (None if size == most or not coded or len(coded) < width else size), at + width
