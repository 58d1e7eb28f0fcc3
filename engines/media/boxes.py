"""Reads the boxes of an mp4 at its top level. Sources: ISO/IEC 14496-12, 4.2 (boxes), 8.8.4 and 8.8.5 (fragments)."""

from engines.media.read_at import ReadAt

_FRAGMENT = b"moof\0\0\0\x10mfhd"  # the beginning of a fragment's head, behind its size
_CHUNK_BYTES = 1 << 20


def unread_fragments(read: ReadAt, size: int) -> int | None:
    """Return the offset at which the boxes of an mp4 of `size` bytes break off, though fragments lie behind it.

    FFmpeg ends there without an error. None if no fragment is left out.
    """
    at, fragments = 0, False
    while at < size:
        header = read(at, 16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if length < 8 or at + length > size:
            return at if fragments and _has_fragment(read, at + 8, size) else None
        fragments = fragments or header[4:8] == b"moof"
        at += length
    return None


def _has_fragment(read: ReadAt, start: int, size: int) -> bool:
    return any(_FRAGMENT in read(at, _CHUNK_BYTES + len(_FRAGMENT)) for at in range(start, size, _CHUNK_BYTES))
