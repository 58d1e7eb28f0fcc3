"""Decodes the packets of a block of sound, and puts the frames that follow each other into runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.packet import Packet

from engines.media.audio_survey import LEAST_RATE, MOST_CHANNELS, MOST_RATE
from engines.media.head import open_head
from engines.part import Tick
from schemas.errors import MediaError

_WHENCE = "a split stage of rigflow sends no such segment"
# in the extradata of Opus: how many samples each new decoder leaves out. `split` has accounted for them
_OPUS_HEAD, _OPUS_SKIP = b"OpusHead", slice(10, 12)


@dataclass(slots=True)
class Run:
    """Frames of one format that follow each other, from sample `start` to sample `end` at the track's rate."""

    start: int
    end: int
    frames: list[AudioFrame] = field(default_factory=list)


class Runs:
    """Makes runs of the packets of one block, by a new decoder.

    `rate` is the track's, `slack` how far a place may differ from the count of samples, `most` how many samples the
    packets may hold together. `lost`: where packets begin that gave nothing, or are missing, and their samples.
    """

    def __init__(self, decoder: AudioCodecContext, rate: int, slack: int, most: int, label: str) -> None:
        self._decoder = decoder
        self._rate = rate
        self._slack = slack
        self._most = most
        self._label = label
        self.lost: dict[int, int] = {}

    def of(self, packets: "Sequence[Packet[Any]]", tick: Tick) -> Iterator[Run]:
        """Yield the runs in order; pts and durations of packets are samples. Raises MediaError for too much sound."""
        run: Run | None = None
        for start, frame in self._placed(packets, tick):
            if run is None or abs(start - run.end) > self._slack or not _alike(frame, run.frames[0]):
                if run is not None:
                    if start > run.end:
                        self.lost = {at: size for at, size in self.lost.items() if not run.end <= at < start}
                        self.lost[run.end] = start - run.end
                    yield run
                run = Run(start, start)
            run.frames.append(frame)
            run.end += self._size(frame)
        if run is not None:
            yield run

    def _placed(self, packets: "Sequence[Packet[Any]]", tick: Tick) -> Iterator[tuple[int, AudioFrame]]:
        """Yield the frames, and where each begins by the place of its packet."""
        end: int | None = None  # of what came so far
        for number, packet in enumerate(packets):
            start, size = packet.pts or 0, packet.duration or 0
            frames = _frames(self._decoder, packet)
            tick()
            count = sum(map(self._size, frames))
            self._most -= count
            if self._most < 0:
                raise MediaError(f"{self._label}: its packets hold more sound than they state", _WHENCE)
            if not frames and number:
                self.lost[start] = size
            if end is None:
                start += max(0, size - count)  # a new decoder may leave out its first samples
            for frame in frames:
                yield start, frame
                start = end = start + self._size(frame)
        if end is not None:
            for frame in _frames(self._decoder, None):  # that it held back
                yield end, frame
                end += self._size(frame)

    def _size(self, frame: AudioFrame) -> int:
        """Return the samples of a frame at the track's rate."""
        return round(frame.samples * self._rate / frame.sample_rate)


@contextmanager
def open_decoder(container: str, head: bytes, label: str) -> Iterator[AudioCodecContext]:
    """Yield a new decoder for the packets that a head describes. Raises MediaError."""
    with open_head(container, head) as opened:
        streams = opened.streams.audio
        codec: AudioCodecContext | None = streams[0].codec_context if len(streams) == 1 else None
        if codec is None:
            raise MediaError(f"{label} has a head without sound", _WHENCE)
        if codec.extradata and codec.extradata.startswith(_OPUS_HEAD):
            extradata = bytearray(codec.extradata)
            extradata[_OPUS_SKIP] = b"\0\0"
            codec.extradata = bytes(extradata)
        codec.thread_type, codec.thread_count = "NONE", 1
        codec.options = {"err_detect": "crccheck"}
        yield codec


def _frames(decoder: AudioCodecContext, packet: "Packet[Any] | None") -> list[AudioFrame]:
    """Return the frames of a packet; none if it is damaged."""
    try:
        frames = [frame for frame in decoder.decode(packet) if frame.samples]
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return []
    usable = (LEAST_RATE <= frame.sample_rate <= MOST_RATE for frame in frames)
    return frames if all(usable) and all(each.layout.nb_channels <= MOST_CHANNELS for each in frames) else []


def _alike(frame: AudioFrame, other: AudioFrame) -> bool:
    same = frame.sample_rate == other.sample_rate and frame.format.name == other.format.name
    return same and frame.layout == other.layout
