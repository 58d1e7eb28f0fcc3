"""Small container files that carry packets from one process to another, copied bit for bit, with their times.

Every file is read back before it is trusted: containers round times, shift them, or hide what comes before their
first keyframe.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from engines.media.source import AnyStream, open_media
from schemas.errors import MediaError

# mp4 keeps every time base and needs no probing; the others hold what mp4 can not
_CARRIERS = ("mp4", "matroska", "nut")
_LARGEST_TIMESCALE = 2**31 - 1
_SOUND_TOLERANCE_S = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Timed:
    """A packet and its times, which muxing overwrites in the packet itself; a packet may go into several pieces."""

    packet: "Packet[Any]"
    stream: AnyStream
    pts: int | None
    dts: int | None
    duration: int | None

    @classmethod
    def of(cls, packet: "Packet[Any]") -> "Timed":
        """The packet with the times it has now."""
        return cls(packet, packet.stream, packet.pts, packet.dts, packet.duration)

    @property
    def seconds(self) -> Fraction | None:
        """When it is presented, in seconds of its container's clock."""
        return None if self.pts is None else self.pts * time_base(self.stream)


@dataclass(frozen=True, slots=True)
class _Read:
    """A packet that was read back: when it is presented, and whether the container means to hide it."""

    seconds: Fraction | None
    hidden: bool


def time_base(stream: AnyStream) -> Fraction:
    """Seconds of one unit of a stream's times."""
    return stream.time_base or Fraction(1)


def carry_picture(stream: VideoStream, packets: Sequence[Timed], since: int) -> tuple[str, bytes] | None:
    """`(container, file)` with `packets`, those from pts `since` on shown; None where no container can hold them."""
    packets = _with_decoding_times(packets)
    start = since * time_base(stream)
    for container in _CARRIERS:
        data, read = _try(container, [stream], packets)
        exact = [packet.seconds for packet in read] == [timed.seconds for timed in packets]
        if data and exact and not any(r.hidden and r.seconds is not None and r.seconds >= start for r in read):
            return container, data
    return None


def carry_sound(streams: Sequence[AudioStream], packets: Sequence[Timed]) -> tuple[str, bytes] | None:
    """`(container, file)` with `packets` of `streams`, right to a millisecond; None where none can."""
    packets = [replace(timed, dts=timed.pts) for timed in packets]
    for container in _CARRIERS:
        data, read = _try(container, streams, packets)
        if data and len(read) == len(packets) and _near(read, packets):
            return container, data
    return None


def _try(container: str, streams: Sequence[AnyStream], packets: Sequence[Timed]) -> tuple[bytes, list[_Read]]:
    """The file and what reading it gives; nothing where the container refuses these packets."""
    try:
        data = _mux(container, streams, packets)
        return data, _read_back(container, data)
    except (av.error.FFmpegError, ValueError, MediaError):
        return b"", []


def _mux(container: str, streams: Sequence[AnyStream], packets: Sequence[Timed]) -> bytes:
    options = {"avoid_negative_ts": "disabled"} if container == "matroska" else {}
    if container == "mp4":
        # an empty edit says when a stream begins; it is exact only in a movie clock as fine as the streams'
        clock = lcm(*(time_base(stream).denominator for stream in streams))
        options["movie_timescale"] = str(min(clock, _LARGEST_TIMESCALE))
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in streams}
        for timed in packets:
            packet = timed.packet
            packet.pts, packet.dts, packet.duration = timed.pts, timed.dts, timed.duration
            packet.time_base = time_base(timed.stream)
            packet.stream = copies[timed.stream.index]
            out.mux(packet)
    return file.getvalue()


def _read_back(container: str, data: bytes) -> list[_Read]:
    with open_media(data, container, "a carrier", decoders=False) as opened:
        packets = [packet for packet in opened.demux() if packet.size]
        return [_Read(Timed.of(packet).seconds, packet.is_discard) for packet in packets]


def _near(read: Sequence[_Read], packets: Sequence[Timed]) -> bool:
    found = sorted(packet.seconds for packet in read if packet.seconds is not None)
    wanted = sorted(timed.seconds for timed in packets if timed.seconds is not None)
    return len(found) >= len(wanted) and all(
        abs(a - b) <= _SOUND_TOLERANCE_S for a, b in zip(found, wanted, strict=False)
    )


def reorder_depth(pts: Sequence[int]) -> int:
    """How many packets at most are decoded before one that is shown before them; `pts` in order of decoding."""
    rank = {time: place for place, time in enumerate(sorted(pts))}
    return max((place - rank[time] for place, time in enumerate(pts)), default=0)


def _with_decoding_times(packets: Sequence[Timed]) -> list[Timed]:
    """The packets with new dts: their pts in order, moved back until none is shown before it is decoded.

    Sources leave dts out, repeat them or let them run backward, and decoders need no more than their order.
    """
    times = [timed.pts for timed in packets if timed.pts is not None]
    ordered, delay = sorted(times), reorder_depth(times)
    step = max(1, (ordered[-1] - ordered[0]) // max(1, len(ordered) - 1))
    ahead = [ordered[0] - step * (delay - place) for place in range(delay)]
    return [replace(timed, dts=dts) for timed, dts in zip(packets, [*ahead, *ordered], strict=False)]
