"""What a demuxer states of a stream's packets, as numbers: no object is kept for a packet."""

from array import array
from typing import NamedTuple

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from engines.media.packets import Flag
from engines.media.times import UNKNOWN, Times

_COLUMNS = 6


class PacketRows(NamedTuple):
    """The packets of a stream in decoding order, `[P]` int64 each.

    `pts` and `dts` are UNKNOWN where the container states none; `durations` are then 0, and `places`, the offset in the
    source, -1. `flags`: KEY as the container says, CORRUPT, HIDDEN, and NEW_EXTRADATA where that was looked for.
    """

    pts: Times
    dts: Times
    durations: Times
    sizes: Times
    places: Times
    flags: Times

    def __len__(self) -> int:
        return len(self.pts)

    def first(self, count: int) -> "PacketRows":
        """Return the rows of the first packets."""
        return PacketRows(*(column[:count] for column in self))


class RowWriter:
    """Takes packets one by one."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._numbers) // _COLUMNS

    def take(self, packet: "Packet[VideoStream]", flags: int) -> None:
        """Take one packet; `flags` are those of its row but CORRUPT."""
        pts, dts, place = packet.pts, packet.dts, packet.pos
        self._numbers.extend(
            (
                UNKNOWN if pts is None else pts,
                UNKNOWN if dts is None else dts,
                packet.duration or 0,
                packet.size,
                -1 if place is None else place,
                flags | Flag.CORRUPT if packet.is_corrupt else flags,
            )
        )

    @property
    def rows(self) -> PacketRows:
        """Return the packets so far."""
        return PacketRows(*np.array(self._numbers, np.int64).reshape(-1, _COLUMNS).T.copy())
