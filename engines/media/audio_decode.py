"""Decodes segments of sound to samples at the pipeline's rate, in blocks that do not depend on segments.

Block k is the sound in `[20 k, 20 (k + 1))` seconds of the media. A decoder of its own begins a second before it, and a
resampler of its own at a whole second, where samples of both rates coincide. So any segment that needs a block makes
the same samples of it: those of one worker or of fifty, of short segments or of long ones.

Decoders that remember a second or less (PCM, FLAC, ALAC, MP3, Vorbis, AAC without noise substitution) give the samples
of one pass over the whole file. Those that never forget quite (Opus, AMR, HE-AAC, AAC with noise substitution) differ
from it inaudibly, always in the same way.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from engines.media.audio_runs import Runs, open_decoder
from engines.media.audio_sound import mixed, resampled
from engines.media.audio_survey import LEAST_RATE, MOST_RATE
from engines.media.source import media_errors
from engines.media.track_packets import unpack_track
from engines.part import Array, Tick, no_tick
from schemas.errors import MediaError, format_field_error
from schemas.media import MediaInfo
from schemas.wire import Buffer

BLOCK_S, WARM_UP_S, TAIL_S = 20, 1, 1
_KEPT_BYTES = 16 << 20  # of blocks: both ends of a window are read before all of it
_WHENCE = "a split stage of rigflow sends no such segment"


class AudioFacts(BaseModel):
    """What a segment of sound has beside its buffers: a head in a `container` format, a table of packets, their bytes.

    The pts and durations of packets are samples at `rate` Hz after second 0, `end` is where the sound ends, and by up
    to `slack` samples a place may differ from the count of samples before it. A packet usually has `size` samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    container: str
    rate: int = Field(ge=LEAST_RATE, le=MOST_RATE)
    end: int = Field(ge=0, lt=1 << 53)
    slack: int = Field(ge=0, le=MOST_RATE)
    size: int = Field(ge=1, lt=1 << 31)

    @classmethod
    def of(cls, facts: Mapping[str, JsonValue], label: str) -> "AudioFacts":
        """Return those of a segment. Raises MediaError."""
        try:
            return cls.model_validate(facts)
        except ValidationError as error:
            raise MediaError(f"{label}: {format_field_error(error.errors()[0])}", _WHENCE) from error


class AudioReader:
    """Reads the sound of a segment at the media's rate, of one or two channels. It keeps the last blocks.

    `lost`: where packets begin that were lost to damage, and how long each is, in samples at the track's own rate;
    `notes`: anything unusual.
    """

    def __init__(
        self,
        media: MediaInfo,
        facts: Mapping[str, JsonValue],
        buffers: Sequence[Buffer],
        channels: int,
        label: str,
        tick: Tick = no_tick,
    ) -> None:
        """`media`, `facts` and the first three `buffers` are those of a segment. Raises MediaError."""
        if len(buffers) != 3 or media.time_base[0] != 1 or media.end is None:
            raise MediaError(f"{label} is no segment of sound", _WHENCE)
        self.media = media
        self.rate = media.time_base[1]
        self.end = media.end - media.origin
        self.lost: dict[int, int] = {}
        self.notes: dict[str, None] = {}
        self._facts = AudioFacts.of(facts, label)
        self._head = bytes(buffers[0])
        self._channels, self._label, self._tick = channels, label, tick
        table, data = (np.frombuffer(buffer, np.uint8) for buffer in buffers[1:])
        self._packets = [packet for packet in unpack_track(table, data) if packet.size] if len(table) else []
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
                block = self._block(number)
                made[:, first - begin : last - begin] = block[:, first - number * size : last - number * size]
        return made

    def counts(self, begin: int, end: int) -> tuple[int, int]:
        """Return how many packets begin in a range at the media's rate, and how many of them were lost.

        One that begins before second 0 and reaches into the sound counts as if it began there.
        """
        first, last = (ceil(place * self._facts.rate / self.rate) for place in (begin, end))
        starts = np.where(self._ends > 0, np.maximum(self._starts, 0), self._starts)
        owned = starts[(starts >= first) & (starts < last)]
        lost = sorted(start for start in self.lost if first <= start < last)
        if lost:
            seconds = sum(self.lost[start] for start in lost) / self._facts.rate
            first_s, last_s = (start / self._facts.rate for start in (lost[0], lost[-1]))
            where = f"at {first_s:.2f} s" if len(lost) == 1 else f"between {first_s:.2f} and {last_s:.2f} s"
            self.notes[f"{self.media.name}: {seconds:.2f} s of sound are missing or damaged, {where}: silence"] = None
        gone = sum(max(1, round(self.lost[start] / self._facts.size)) for start in lost)
        broken = sum(int(((owned >= start) & (owned < start + self.lost[start])).sum()) for start in lost)
        return len(owned) - broken, gone

    def _block(self, number: int) -> Array:
        if number not in self._blocks:
            self._tick()
            with media_errors(self._label):
                made = self._decoded(number)
            while self._blocks and (len(self._blocks) + 1) * made.nbytes > _KEPT_BYTES:
                del self._blocks[min(self._blocks)]
            self._blocks[number] = made
        return self._blocks[number]

    def _decoded(self, number: int) -> Array:
        """Return the samples of a block, `[channels, BLOCK_S * rate]`."""
        own = self._facts.rate
        origin = (number * BLOCK_S - WARM_UP_S) * own
        line = np.zeros((self._channels, (BLOCK_S + WARM_UP_S + TAIL_S) * own), np.int32)
        chosen = np.flatnonzero((self._ends > origin) & (self._starts < origin + line.shape[1]))
        packets = [self._packets[place] for place in chosen.tolist()]
        with open_decoder(self._facts.container, self._head, self._label) as decoder:
            runs = Runs(decoder, own, self._facts.slack, 2 * line.shape[1], self._label)
            for run in runs.of(packets, self._tick):
                samples, bad = mixed(run.frames, self._channels)
                if bad:
                    self.notes[f"{self.media.name}: samples that are no numbers are silence"] = None
                samples = resampled(samples, run.frames[0].sample_rate, own)
                begin = max(run.start, 0, origin)
                stop = min(run.start + samples.shape[1], self._facts.end, origin + line.shape[1])
                if begin < stop:
                    line[:, begin - origin : stop - origin] = samples[:, begin - run.start : stop - run.start]
        block = range(number * BLOCK_S * own, (number + 1) * BLOCK_S * own)
        self.lost |= {start: size for start, size in runs.lost.items() if start in block}
        made = resampled(line, own, self.rate)
        return np.ascontiguousarray(made[:, WARM_UP_S * self.rate :][:, : BLOCK_S * self.rate])
