"""Decodes segments of sound to samples at the pipeline's rate, in blocks that do not depend on segments.

Block k is the sound in `[20 k, 20 (k + 1))` seconds of the media. A decoder of its own begins a second before it, and a
resampler of its own at a whole second, where samples of both rates coincide. So any segment that needs a block makes
the same samples of it: those of one worker or of fifty, of short segments or of long ones.

Decoders that remember a second or less (PCM, FLAC, ALAC, MP3, Vorbis, AAC without noise substitution) give the samples
of one pass over the whole file. Those that never forget quite (Opus, AMR, HE-AAC, AAC with noise substitution) differ
from it inaudibly, always in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.packet import Packet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.media.audio_sound import mixed, resampled
from engines.media.audio_survey import MOST_CHANNELS, MOST_RATE
from engines.media.head import open_head
from engines.media.source import media_errors
from engines.media.track_packets import unpack_track
from engines.part import Array, Tick
from schemas.errors import MediaError, format_field_error
from schemas.media import MediaInfo
from schemas.segments import Segment
from schemas.wire import Buffer

BLOCK_S, WARM_UP_S, TAIL_S = 20, 1, 1
_KEPT_BLOCKS = 2
_WHENCE = "a split stage of rigflow sends no such segment"
# codec parameters of the opus head: how many samples every new decoder leaves out, which `split` has accounted for
_OPUS_HEAD, _OPUS_SKIP = b"OpusHead", slice(10, 12)


class AudioFacts(BaseModel):
    """What a segment of sound has beside its buffers: a head in a `container` format, a table of packets, their bytes.

    The pts and durations of packets are samples at `rate` Hz after second 0, `end` is where the sound ends, and by up
    to `slack` samples a place may differ from the count of samples before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    container: str
    rate: int = Field(ge=1, le=MOST_RATE)
    end: int = Field(ge=0, lt=1 << 53)
    slack: int = Field(ge=0, le=MOST_RATE)

    @classmethod
    def of(cls, segment: Segment, label: str) -> "AudioFacts":
        """Return those of a segment. Raises MediaError."""
        try:
            return cls.model_validate(segment.facts)
        except ValidationError as error:
            raise MediaError(f"{label}: {format_field_error(error.errors()[0])}", _WHENCE) from error


@dataclass(slots=True)
class _Run:
    """Frames of one format that follow each other, from sample `start` on."""

    start: int
    frames: list[AudioFrame] = field(default_factory=list)
    end: int = 0


class AudioReader:
    """Reads the sound of a segment at the media's rate, of one or two channels. It keeps the last blocks.

    `lost`: the seconds at which packets were lost to damage, and how long each lasts; `notes`: anything unusual.
    """

    def __init__(self, segment: Segment, buffers: Sequence[Buffer], channels: int, label: str, tick: Tick) -> None:
        if len(buffers) != 3 or segment.media.time_base[0] != 1 or segment.media.end is None:
            raise MediaError(f"{label} has {len(buffers)} buffers", _WHENCE)
        self.media: MediaInfo = segment.media
        self.rate = segment.media.time_base[1]
        self.end = segment.media.end - segment.media.origin
        self.lost: dict[int, int] = {}  # packets without sound: where they begin, and their samples at the own rate
        self.notes: dict[str, None] = {}
        self._facts = AudioFacts.of(segment, label)
        self._head = bytes(buffers[0])
        self._channels, self._label, self._tick = channels, label, tick
        table, data = (np.frombuffer(buffer, np.uint8) for buffer in buffers[1:])
        self._packets = [packet for packet in unpack_track(table, data) if packet.size]
        self._starts = np.array([packet.pts or 0 for packet in self._packets], np.int64)
        self._ends = self._starts + np.array([packet.duration or 0 for packet in self._packets], np.int64)
        self._blocks: dict[int, Array] = {}

    def read(self, begin: int, end: int) -> Array:
        """Return `[channels, end - begin]` int32; silence before second 0 and after the end of the sound."""
        made = np.zeros((self._channels, end - begin), np.int32)
        size = BLOCK_S * self.rate
        for number in range(max(0, begin) // size, -(-min(end, self.end) // size)):
            first, last = max(begin, number * size, 0), min(end, (number + 1) * size, self.end)
            if first < last:
                made[:, first - begin : last - begin] = self._block(number)[
                    :, first - number * size : last - number * size
                ]
        return made

    def counts(self, begin: int, end: int) -> tuple[int, int]:
        """Return how many packets begin in a range at the media's rate, and how many of them were lost."""
        first, last = (ceil(place * self._facts.rate / self.rate) for place in (begin, end))
        owned = int(((self._starts >= first) & (self._starts < last)).sum())
        lost = [start for start in self.lost if first <= start < last]
        if lost:
            seconds = sum(self.lost[start] for start in lost) / self._facts.rate
            first_s, last_s = (start / self._facts.rate for start in (min(lost), max(lost)))
            where = f"at {first_s:.2f} s" if len(lost) == 1 else f"between {first_s:.2f} and {last_s:.2f} s"
            self.notes[f"{self.media.name}: {seconds:.2f} s of sound are lost to damage, {where}: silence"] = None
        return max(0, owned - len(lost)), len(lost)

    def _block(self, number: int) -> Array:
        if number not in self._blocks:
            with media_errors(self._label):
                made = self._decoded(number)
            while len(self._blocks) >= _KEPT_BLOCKS:
                del self._blocks[min(self._blocks)]
            self._blocks[number] = made
        return self._blocks[number]

    def _decoded(self, number: int) -> Array:
        """Return the samples of a block, `[channels, BLOCK_S * rate]`."""
        own = self._facts.rate
        origin = (number * BLOCK_S - WARM_UP_S) * own
        line = np.zeros((self._channels, (BLOCK_S + WARM_UP_S + TAIL_S) * own), np.int32)
        for run in self._runs(number, origin, origin + line.shape[1]):
            samples, bad = mixed(run.frames, self._channels)
            if bad:
                self.notes[f"{self.media.name}: samples that are no numbers are silence"] = None
            samples = resampled(samples, run.frames[0].sample_rate, own)
            stop = min(run.start + samples.shape[1], self._facts.end, origin + line.shape[1])
            begin = max(run.start, 0, origin)
            if begin < stop:
                line[:, begin - origin : stop - origin] = samples[:, begin - run.start : stop - run.start]
        made = resampled(line, own, self.rate)
        return np.ascontiguousarray(made[:, WARM_UP_S * self.rate :][:, : BLOCK_S * self.rate])

    def _runs(self, number: int, origin: int, end: int) -> Iterator[_Run]:
        """Yield what the decoder makes of a block's packets; lost ones are noted if they begin in the block itself."""
        chosen = np.flatnonzero((self._ends > origin) & (self._starts < end))
        core = range(number * BLOCK_S * self._facts.rate, (number + 1) * BLOCK_S * self._facts.rate)
        run: _Run | None = None
        most = 2 * (end - origin)  # a message from elsewhere may state any places
        with self._decoder() as decoder:
            for place in [*chosen.tolist(), None]:
                if place is None:  # what the decoder held back
                    start, size, frames = run.end if run else 0, 0, _frames(decoder, None) if run else []
                else:
                    start, size = int(self._starts[place]), int(self._ends[place] - self._starts[place])
                    frames = _frames(decoder, self._packets[place])
                self._tick()
                if not frames:
                    if place is not None and start in core and place != chosen[0]:
                        self.lost[start] = size
                    continue
                count = sum(self._scaled(frame) for frame in frames)
                most -= count
                if most < 0:
                    raise MediaError(f"{self._label}: its packets hold more sound than they state", _WHENCE)
                start += max(0, size - count) if run is None else 0  # new decoders may leave out their first samples
                for frame in frames:
                    if run is None or abs(start - run.end) > self._facts.slack or not _alike(frame, run.frames[0]):
                        if run is not None:
                            if start > run.end and run.end in core:
                                self.lost[run.end] = start - run.end
                            yield run
                        run = _Run(start, [], start)
                    run.frames.append(frame)
                    run.end += self._scaled(frame)
                    start = run.end
        if run is not None:
            yield run

    def _scaled(self, frame: AudioFrame) -> int:
        """Return the samples of a frame at the track's rate."""
        return round(frame.samples * self._facts.rate / frame.sample_rate)

    def _decoder(self) -> "_Decoder":
        return _Decoder(self._facts.container, self._head, self._label)


class _Decoder:
    """A new decoder for the packets that a head describes. A context manager."""

    def __init__(self, container: str, head: bytes, label: str) -> None:
        self._container = open_head(container, head)
        self._label = label

    def __enter__(self) -> AudioCodecContext:
        streams = self._container.streams.audio
        codec: Any = streams[0].codec_context if len(streams) == 1 else None
        if codec is None:
            raise MediaError(f"{self._label} has a head without sound", _WHENCE)
        if codec.extradata and codec.extradata.startswith(_OPUS_HEAD):
            extradata = bytearray(codec.extradata)
            extradata[_OPUS_SKIP] = b"\0\0"
            codec.extradata = bytes(extradata)
        codec.thread_type, codec.thread_count = "NONE", 1
        return codec  # type: ignore[no-any-return]

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _frames(decoder: AudioCodecContext, packet: "Packet[Any] | None") -> list[AudioFrame]:
    """Return the frames of a packet; none if it is damaged."""
    try:
        frames = [frame for frame in decoder.decode(packet) if frame.samples]
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return []
    return [frame for frame in frames if frame.sample_rate <= MOST_RATE and frame.layout.nb_channels <= MOST_CHANNELS]


def _alike(frame: AudioFrame, other: AudioFrame) -> bool:
    same = frame.sample_rate == other.sample_rate and frame.format.name == other.format.name
    return same and frame.layout == other.layout
