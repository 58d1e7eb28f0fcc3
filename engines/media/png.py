"""Removes png chunks that FFmpeg unpacks into memory without a limit (up to a thousandfold) and Pillow refuses."""

from schemas.wire import Buffer

_PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")  # compressed texts and the colour profile; rigflow reads neither
_SIGNATURE_BYTES = 8


def without_packed_chunks(data: Buffer) -> bytes:
    """Return the png without its compressed texts and colour profile. Source: PNG (ISO 15948), section 5.3."""
    content = bytes(data)
    if not any(kind in content for kind in _PACKED_CHUNKS):
        return content
    kept, at = [content[:_SIGNATURE_BYTES]], _SIGNATURE_BYTES
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in _PACKED_CHUNKS:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)
