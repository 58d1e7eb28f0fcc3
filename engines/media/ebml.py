"""Reads the length that a Matroska or WebM file states. Sources: RFC 8794, 4 to 6 (EBML); RFC 9559, 4.5 (Segment)."""

from schemas.wire import Buffer

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


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


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """Return an element's size (None if it is unknown or absent) and the offset of the element's content."""
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 0
    coded = data[at : at + width]
    most = (1 << 7 * width) - 1
    size = int.from_bytes(coded, "big") & most
    return (None if size == most or not coded or len(coded) < width else size), at + width
