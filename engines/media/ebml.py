"""What a Matroska file or a WebM says of its own length. Source: RFC 8794, 4 to 6 (EBML); RFC 9559, 4.5 (Segment)."""

from schemas.wire import Buffer

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def declared_length(head: Buffer) -> int | None:
    """The bytes of the whole file, by its first ones; None where they do not tell (live recordings)."""
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
    """An element's size, None where it is unknown or not there, and where the element's content begins."""
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 0
    coded = data[at : at + width]
    most = (1 << 7 * width) - 1
    size = int.from_bytes(coded, "big") & most
    return (None if size == most or not coded or len(coded) < width else size), at + width
