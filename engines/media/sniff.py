"""Detects the image format of a file, and whether it is an animation, by its content alone.

Sources: the formats' signatures; PNG 3rd edition, 11.3.3 (acTL); the WebP container specification (VP8X); ISO 23008-12
(brands of HEIF and AVIF); Truevision TGA 2.0 (its header, because it has no signature); JPEG ITU-T T.81 annex B; CIPA
DC-007 (MPF, further pictures behind a photo).
"""

import re
from importlib.util import find_spec

from engines.media.jpeg import APP2, segments
from engines.media.png import has_chunk
from engines.media.read_at import ReadAt
from schemas.wire import Buffer

HEAD_BYTES = 512  # of a file, which are enough to know its format

_BRANDS_BYTES = 64
_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
}
_AVIF = frozenset((b"avif", b"avis"))
_HEIF = frozenset((b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_SEQUENCES = frozenset((b"avis", b"msf1", b"hevc", b"hevx"))
_TGA_DEPTHS = {1: (8,), 2: (15, 16, 24, 32), 3: (1, 8, 16), 9: (8,), 10: (15, 16, 24, 32), 11: (1, 8, 16)}

_JPEG_BORDER_BYTES = 64
_JPEG_BORDER = re.compile(rb"\xff\xd9\0{0,59}\xff\xd8\xff")  # the end of a jpeg and the start of the next one
_READ_BYTES = 1 << 20


def formats() -> str:
    """The image formats that are read here, for people; heic is one of them where pillow-heif is installed."""
    named = ["jpeg", "png", "webp", "gif", "avif", "bmp", "tiff", "ppm", "tga", "jpeg 2000"]
    named += ["heic"] if find_spec("pillow_heif") else []
    return f"{', '.join(named[:-1])} or {named[-1]}"


def image_format(head: Buffer) -> str | None:
    """Return the lower-case name of the image format that `head` (`HEAD_BYTES`) begins; None if it is no image."""
    start = bytes(head[:_BRANDS_BYTES])
    for signature, name in _STARTS.items():
        if start.startswith(signature):
            return None if name == "bmp" and not _is_bmp(start) else name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[4:8] == b"ftyp":
        return "avif" if start[8:12] in _AVIF or (start[8:12] in _HEIF and _brands(start) & _AVIF) else _heif(start)
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "ppm"
    return "tga" if _is_tga(start) else None


def is_animation(name: str, read: ReadAt) -> bool:
    """Return whether an image of the format `name` (of `image_format`) has several pictures to show one after the
    other.
    """
    if name == "png":
        return has_chunk(read, b"acTL")
    if name == "webp":
        head = read(12, 9)
        return head[:4] == b"VP8X" and bool(head[8:9]) and bool(head[8] & 2)
    if name == "jpeg":
        return _is_motion_jpeg(read)
    if name == "gif":
        return _gif_pictures(read, 2) == 2
    return name in ("avif", "heif") and bool(_brands(read(0, _BRANDS_BYTES)) & _SEQUENCES)


def _heif(start: bytes) -> str | None:
    return "heif" if start[8:12] in _HEIF else None


def _brands(start: bytes) -> frozenset[bytes]:
    """Return the major brand and the compatible ones, as far as `start` contains them."""
    end = min(len(start), int.from_bytes(start[:4], "big"))
    return frozenset((start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4))))


def _is_bmp(start: bytes) -> bool:
    """Return whether a header of a known length follows; many texts begin with the same two letters."""
    return int.from_bytes(start[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_tga(start: bytes) -> bool:
    if len(start) < 18:
        return False
    mapped, kind, depth = start[1], start[2], start[16]
    has_map = mapped == 1 and start[7] in (15, 16, 24, 32)
    fits = has_map if kind in (1, 9) else mapped == 0 and not any(start[3:8])
    sized = any(start[12:14]) and any(start[14:16])
    return fits and sized and depth in _TGA_DEPTHS.get(kind, ()) and start[17] < 64


def _is_motion_jpeg(read: ReadAt) -> bool:
    """Return whether a jpeg begins where another one ends: raw Motion JPEG. A photo with further pictures by MPF is
    none.
    """
    at = 2
    for marker, at in segments(read):
        if marker == APP2 and read(at + 4, 4) == b"MPF\0":
            return False
    data = b""
    while more := read(at, _READ_BYTES):  # pixels have no such bytes: a 0 follows each 255
        data = data[-_JPEG_BORDER_BYTES:] + more
        if _JPEG_BORDER.search(data):
            return True
        at += len(more)
    return False


def _gif_pictures(read: ReadAt, most: int) -> int:
    """Return the number of pictures in a GIF, `most` at most. Source: GIF89a, sections 17 to 24."""
    flags = read(10, 1)
    at, found = 13 + _table_bytes(flags), 0
    while flags and found < most:
        head = read(at, 11)
        if head[:1] == b"!":
            at += 2
        elif head[:1] == b"," and len(head) >= 10:
            found += 1
            at += 11 + _table_bytes(head[9:10])
        else:
            break
        while size := read(at, 1):  # a block's data lies in blocks of up to 255 bytes, and ends with an empty one
            at += 1 + size[0]
            if not size[0]:
                break
    return found


def _table_bytes(flags: bytes) -> int:
    """Return the size of a GIF's colour table in bytes."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
