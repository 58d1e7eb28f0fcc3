"""Small container files that carry packets from one process to another, copied bit for bit, with their times.

Every file is read back before it is trusted: containers round times, shift them, or hide what comes before their
first keyframe.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

import av
from av.packet import Packet
from av.video.stream import VideoStream

from engines.media.source import AnyStream, open_media
from schemas.errors import MediaError

# mp4 keeps every time base and needs no probing; the others hold what mp4 can not
_CARRIERS = ("mp4", "matroska", "nut")
_LARGEST_TIMESCALE = 2**31 - 1


class Timed(NamedTuple):
    """A packet and its times, which muxing overwrites in the packet itself; a packet may go into several pieces."""

    packet: "Packet[Any]"
    stream: AnyStream
    pts: int | None
    duration: int | None

    @classmethod
    def of(cls, packet: "Packet[Any]") -> "Timed":
        """The packet with the times it has now."""
        return cls(packet, packet.stream, packet.pts, packet.duration)

    @property
    def seconds(self) -> Fraction | None:
        """When it is presented, in seconds of its container's clock."""
        return None if self.pts is None else self.pts * time_base(self.stream)


class _Read(NamedTuple):
    """A stream that was read back: when each packet is presented, and whether the container means to hide it."""

    base: Fraction
    pts: list[int | None]
    hidden: list[bool]

    def times(self, base: Fraction) -> Sequence[Fraction | int | None]:
        """The pts in units of `base`; whole numbers where it is the container's own, as it is in mp4."""
        if self.base == base:
            return self.pts
        scale = self.base / base
        return [None if pts is None else pts * scale for pts in self.pts]


def time_base(stream: AnyStream) -> Fraction:
    """Seconds of one unit of a stream's times."""
    return stream.time_base or Fraction(1)


def carry_picture(stream: VideoStream, packets: Sequence[Timed], since: int) -> tuple[str, bytes] | None:
    """`(container, file)` with `packets`, those from pts `since` on shown; None where no container can hold them."""
    pts = [timed.pts for timed in packets]
    dts = _decoding_times([time for time in pts if time is not None])
    for container in _CARRIERS:
        data, read = _try(container, [stream], packets, dts)
        if not read:
            continue
        (track,) = read
        times = track.times(time_base(stream))
        hidden = (time for time, hides in zip(times, track.hidden, strict=True) if hides)
        if times == pts and not any(time is not None and time >= since for time in hidden):
            return container, data
    return None


def _try(
    container: str, streams: Sequence[AnyStream], packets: Sequence[Timed], dts: Sequence[int | None]
) -> tuple[bytes, list[_Read]]:
    """The file and what reading it gives, stream by stream; nothing where the container refuses these packets."""
    try:
        data = _mux(container, streams, packets, dts)
        return data, _read_back(container, data)
    except (av.error.FFmpegError, ValueError, MediaError):
        return b"", []


def _mux(container: str, streams: Sequence[AnyStream], packets: Sequence[Timed], dts: Sequence[int | None]) -> bytes:
    options = {"avoid_negative_ts": "disabled"} if container == "matroska" else {}
    bases = {stream.index: time_base(stream) for stream in streams}
    if container == "mp4":
        # an empty edit says when a stream begins; it is exact only in a movie clock as fine as the streams'
        clock = lcm(*(base.denominator for base in bases.values()))
        options["movie_timescale"] = str(min(clock, _LARGEST_TIMESCALE))
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in streams}
        for timed, decoded in zip(packets, dts, strict=False):
            packet, source = timed.packet, timed.stream.index
            packet.pts, packet.dts, packet.duration = timed.pts, decoded, timed.duration
            packet.time_base, packet.stream = bases[source], copies[source]
            out.mux_one(packet)
    return file.getvalue()


def _read_back(container: str, data: bytes) -> list[_Read]:
    with open_media(data, container, "a carrier", decoders=False) as opened:
        read = [_Read(stream.time_base or Fraction(1), [], []) for stream in opened.streams.get()]
        for packet in opened.demux():
            if packet.size:
                track = read[packet.stream_index]
                track.pts.append(packet.pts)
                track.hidden.append(packet.is_discard)
        return read


def reorder_depth(pts: Sequence[int]) -> int:
    """How many packets at most are decoded before one that is shown before them; `pts` in order of decoding."""
    rank = {time: place for place, time in enumerate(sorted(pts))}
    return max((place - rank[time] for place, time in enumerate(pts)), default=0)


def _decoding_times(pts: Sequence[int]) -> list[int]:
    """New dts for packets: their pts in order, moved back until none is shown before it is decoded.

    Sources leave dts out, repeat them or let them run backward, and decoders need no more than their order.
    """
    ordered, delay = sorted(pts), reorder_depth(pts)
    step = max(1, (ordered[-1] - ordered[0]) // max(1, len(ordered) - 1))
    return [*(ordered[0] - step * (delay - place) for place in range(delay)), *ordered]
