"""The segments in front of a jpeg's pixels, and its header among them. Source: ITU-T T.81, annex B."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from engines.media.read_at import ReadAt, reader
from schemas.wire import Buffer

SCAN, APP1, APP2 = 0xDA, 0xE1, 0xE2
_END = b"\xff\xd9"
MOST_SEGMENTS = 1024  # a colour profile of 16 MB has 256
_EXIF = b"Exif\0"  # begins the segment APP1 that holds the orientation; CIPA DC-008, 4.5.4: in front of the pixels
_FILL = 0xFF  # any number of these may stand before a marker
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: all of C0..CF but DHT, JPG and DAC
_BARE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_SEQUENTIAL = range(0xC0, 0xC3)  # baseline, extended and progressive by Huffman codes, which FFmpeg reads


class JpegHeader(NamedTuple):
    """Height and width, the marker that begins the frame and names its kind, and how each component is sampled.

    `exif`: whether EXIF data stand in front of the pixels.
    """

    size: tuple[int, int]
    marker: int
    sampling: bytes
    exif: bool

    @property
    def usual(self) -> bool:
        """Return whether FFmpeg reads this kind: gray or colours, without the black of CMYK."""
        return self.marker in _SEQUENTIAL and len(self.sampling) in (1, 3)

    @property
    def subsampled(self) -> bool:
        """Return whether colours are stored at a smaller size."""
        return len(set(self.sampling)) > 1


def segments(read: ReadAt) -> Iterator[tuple[int, int]]:
    """`(marker, offset)` of each segment up to the first scan; `(0, offset)` where there is no segment."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        head = read(at, 4)
        if len(head) < 4 or head[0] != _FILL:
            break
        marker = head[1]
        if marker == _FILL:
            at += 1
            continue
        yield marker, at
        if marker == SCAN:
            return
        at += 2 if marker in _BARE else 2 + int.from_bytes(head[2:4], "big")
    yield 0, at


def has_end(data: Buffer) -> bool:
    """Return whether a jpeg's last marker is there, behind its pixels; a preview in EXIF data has one, too."""
    marker, at = deque(segments(reader(data)), maxlen=1).pop()
    return marker == SCAN and bytes(data).rfind(_END) > at


def jpeg_header(read: ReadAt) -> JpegHeader | None:
    """The header of a jpeg's frame; None when there is none in front of its pixels."""
    header, exif = None, False
    for marker, at in segments(read):
        if marker == APP1:
            exif = exif or read(at + 4, len(_EXIF)) == _EXIF
        elif marker in _FRAMES and header is None:
            header = read(at, 10)
            if len(header) < 10:
                return None
            sampling = read(at + 11, 3 * header[9] - 1)[::3] if header[9] else b""
    if header is None:
        return None
    size = int.from_bytes(header[5:7], "big"), int.from_bytes(header[7:9], "big")
    return JpegHeader(size, header[1], sampling, exif)
