"""Sound packets from a segment's small file, placed in the whole file."""

from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream


class SoundTrack:
    """One sound stream of the output.

    Matroska keeps whole milliseconds, which are no whole number of samples: a packet that comes when the one before it
    ends, as far as such a clock can tell, is put where that one ends. So rounding leaves no gaps in the sound.
    """

    def __init__(self, stream: AudioStream, frame_size: int) -> None:
        self._stream = stream
        self._frame_size = frame_size  # samples a packet; 0: not always the same, or unknown
        self._next: Fraction | None = None  # seconds

    def place(self, packet: "av.Packet[Any]", shift: Fraction) -> None:
        """Moves `packet` to this stream, `shift` seconds later, its times in samples."""
        rate = self._stream.codec_context.sample_rate
        assert packet.time_base is not None
        assert packet.pts is not None
        tick, time = packet.time_base, packet.pts * packet.time_base + shift
        if self._next is not None and abs(time - self._next) < tick:
            time = self._next
        length = Fraction(self._frame_size, rate) or (packet.duration or 0) * tick
        self._next = time + length if length else None
        packet.stream, packet.time_base = self._stream, Fraction(1, rate)
        packet.pts = packet.dts = round(time * rate)
        packet.duration = round(length * rate)
