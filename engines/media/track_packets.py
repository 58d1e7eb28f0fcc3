"""Packets of a track on their way from `split` to `collect`: a table and their bytes, without a container.

The table has one row a packet, `[P, 4] int64`: flags (1: decoding can start at it), pts, duration, bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.packet import Packet

from engines.part import Array
from schemas.errors import MediaError

_COLUMNS = 4
_KEY = 1
_MOST_TICKS = 1 << 62  # sums of two fit in 64 bits


def pack(packets: "Sequence[Packet[Any]]") -> tuple[Array, Array]:
    """`(table, data)` of packets whose pts are known."""
    rows = [(_KEY * packet.is_keyframe, packet.pts, packet.duration or 0, packet.size) for packet in packets]
    data = np.frombuffer(b"".join(memoryview(packet) for packet in packets), np.uint8)
    return np.array(rows, np.int64).reshape(-1, _COLUMNS), data


def unpack(table: Array, data: Array) -> "Iterator[Packet[Any]]":
    """The packets of a table and their bytes. Raises MediaError where these do not fit."""
    if table.dtype != np.int64 or table.ndim != 2 or table.shape[1] != _COLUMNS or data.dtype != np.uint8:
        raise MediaError(f"a table of packets is {table.dtype}, shape {list(table.shape)}")
    sizes, body = table[:, 3], memoryview(np.ascontiguousarray(data.reshape(-1)))  # type: ignore[arg-type]
    if ((sizes < 1) | (sizes > len(body))).any() or int(sizes.sum()) != len(body):
        raise MediaError(f"a table of {len(table)} packets does not fit their {len(body)} bytes")
    if (np.abs(table[:, 1:3]) > _MOST_TICKS).any():
        raise MediaError(f"a table of {len(table)} packets has times beyond any clock")
    start = 0
    for flags, pts, duration, size in table.tolist():
        packet: Packet[Any] = Packet(size)  # FFmpeg reads a little past the end: it needs memory of its own
        packet.update(body[start : start + size])  # type: ignore[arg-type]  # it takes any buffer
        packet.pts, packet.duration, packet.is_keyframe = pts, duration, bool(flags & _KEY)
        start += size
        yield packet


class Order:
    """Gives the sound packets of a track back one packet late, and moves what lies ahead of the packet after it.

    So one odd time does not push all that come behind it. A packet without a time begins where the one before ends.
    """

    def __init__(self) -> None:
        self.ahead: int | None = None  # the first pts that lay ahead, until the caller takes it
        self._waiting: Packet[Any] | None = None
        self._last: int | None = None
        self._end = 0

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """The packet before this one."""
        waiting = self._waiting
        if packet.pts is None:
            packet.pts = self._end if waiting is None else (waiting.pts or 0) + (waiting.duration or 0)
        if waiting is not None and self._last is not None and self._last < packet.pts < (waiting.pts or 0):
            self.ahead = waiting.pts if self.ahead is None else self.ahead
            waiting.pts = max(self._end, self._last + 1)
        before = self.end()
        self._waiting = packet
        return before

    def end(self) -> "list[Packet[Any]]":
        """The last packet."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return []
        self._last = waiting.pts or 0
        self._end = self._last + (waiting.duration or 0)
        return [waiting]
