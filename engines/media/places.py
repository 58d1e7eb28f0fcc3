"""Reads packets where they lie in an mp4, so that its bytes are copied once and no object is made for each packet.

FFmpeg gives the samples of H.264 and HEVC in mp4 as they are. The survey notes their places; the segments are then read
by one call for all packets that lie one after the other.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.media.cuts import Cut, Packets
from engines.media.packet_rows import PacketRows
from engines.media.packets import Flag, table_of
from engines.media.read_at import ReadAt
from engines.media.source import changed
from schemas.errors import ItemTooLarge
from schemas.text import size
from schemas.wire import Pieces

MAX_SEGMENT_BYTES = 512 << 20
PACKET_BYTES = 1 << 10  # the memory of a packet in addition to its data
CONVERT = "convert it to H.264 with a keyframe every few seconds: ffmpeg -i IN -g 100 OUT.mp4"
_CODECS = ("h264", "hevc")
_FLAGS, _DURATION, _SIZE, _PLACE = range(4)
Rows: TypeAlias = npt.NDArray[np.int64]


def places_of(container: InputContainer, stream: VideoStream, rows: PacketRows) -> Rows | None:
    """Return `[P, 4]`: flags, duration, size and place of each packet; None if its bytes may not be the file's."""
    if not keeps_bytes(container, stream) or np.any(rows.places < 0) or np.any(rows.flags & Flag.NEW_EXTRADATA):
        return None
    return np.stack([rows.flags & (Flag.KEY | Flag.CORRUPT), rows.durations, rows.sizes, rows.places], 1)


def keeps_bytes(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether FFmpeg gives the packets of a stream as they are in the file."""
    return "mp4" in container.format.name and stream.codec_context.name in _CODECS


def _packed(extradata: bytes | None, rows: Rows, flags: Rows, pts: Rows, read: ReadAt) -> tuple[bytes, Pieces]:
    """Return what `engines.media.packets.pack` returns of these packets, `flags` being more of each.

    The data is shorter than the table says if the file is.
    """
    columns = rows[:, _FLAGS] | flags, pts, rows[:, _DURATION], rows[:, _SIZE]
    places, sizes = rows[:, _PLACE], rows[:, _SIZE]
    breaks = np.flatnonzero(places[1:] != places[:-1] + sizes[:-1]) + 1
    firsts = [0, *breaks.tolist()]
    lengths = np.add.reduceat(sizes, firsts).tolist()
    data = [read(int(places[first]), length) for first, length in zip(firsts, lengths, strict=True)]
    return table_of(extradata, np.stack(columns, 1)), Pieces([*([extradata] if extradata else []), *data])


class PlacedPackets:
    """The packets of a media with `places`, read by `read`; no tracks beside the picture."""

    def __init__(self, settled: Packets, places: Rows, read: ReadAt, label: str) -> None:
        self._settled, self._places, self._read, self._label = settled, places, read, label
        self._flags = known_flags(settled)

    def packed(self, cut: Cut, extradata: bytes | None) -> tuple[bytes, Pieces]:
        """Return the buffers of a planned segment."""
        some = slice(cut.first, cut.stop)
        rows = self._places[some]
        nbytes = int(rows[:, _SIZE].sum())
        check_bytes(self._label, nbytes + PACKET_BYTES * len(rows), len(rows))
        table, data = _packed(extradata, rows, self._flags[some], self._settled.pts[some], self._read)
        if len(data) != nbytes + len(extradata or b""):
            raise changed(self._label)
        return table, data

    def beside(self, to_the_end: bool) -> None:
        """Return nothing."""


def known_flags(settled: Packets) -> Rows:
    """Return the flags of all packets that are known of their times."""
    made: Rows = settled.entries * np.int64(Flag.ENTRY) | ~settled.shown * np.int64(Flag.HIDDEN)
    return made


def check_bytes(label: str, nbytes: int, count: int) -> None:
    """Raises ItemTooLarge if `count` packets take too much memory for a segment."""
    if nbytes > MAX_SEGMENT_BYTES:
        what = f"{label}: {count} packets lie between two places where it can be cut"
        raise ItemTooLarge(f"{what}, and take more than {size(MAX_SEGMENT_BYTES)} of memory", CONVERT)
