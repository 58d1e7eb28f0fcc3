"""Carries packets of a track from `split` to `collect`: the table of `engines.media.packets`, and their bytes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.packet import Packet

from engines.media.packets import Coded, Flag, pack, rows_of
from engines.part import Array


def pack_track(packets: "Sequence[Packet[Any]]") -> tuple[Array, Array]:
    """Return `(table, data)` of packets whose pts are known."""
    coded = [Coded(packet, Flag.KEY if packet.is_keyframe else 0, packet.pts or 0) for packet in packets]
    table, data = pack(None, coded)
    return np.frombuffer(table, np.int64).reshape(len(packets), -1), np.frombuffer(bytes(data), np.uint8)


def unpack_track(table: Array, data: Array) -> "Iterator[Packet[Any]]":
    """Yield the packets of a table and their bytes. Raises MediaError if table and data disagree."""
    for flags, pts, duration, body in rows_of(table.tobytes(), data.tobytes()):
        # FFmpeg reads a little past the end of a packet: it needs memory of its own
        packet: Packet[Any] = Packet(len(body))
        packet.update(body)  # type: ignore[arg-type]  # it takes any buffer
        packet.pts, packet.duration, packet.is_keyframe = pts, duration, bool(flags & Flag.KEY)
        yield packet


class Order:
    """Returns a track's sound packets one packet late, and moves back a time that is ahead of the next packet's.

    Then one wrong time does not shift all packets after it. A packet without a time begins where the one before ends.
    """

    def __init__(self) -> None:
        self.ahead: int | None = None  # the first pts that was ahead, until the caller takes it
        self._waiting: Packet[Any] | None = None
        self._last: int | None = None
        self._end = 0

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Return the packet before this one."""
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
        """Return the last packet."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return []
        self._last = waiting.pts or 0
        self._end = self._last + (waiting.duration or 0)
        return [waiting]
