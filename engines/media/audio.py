"""audio: the sound of files of any container that FFmpeg reads, those of videos too, as windows of float32 samples.

What decode makes for the stages after it. A window is a row, and windows follow each other without a gap or overlap:

- `sound`: `Ragged` float32 of -1 ... 1, `[samples]` values a row of one channel, `[samples, 2]` of two, at `rate` Hz.
  It is left out where a model says what windows are, unless the decode stage gives `window_s`.
- `head`, with `head_s`: one channel of the first seconds of the media, for decisions that all windows share. Row 0 of a
  part has it, the others are empty.
- `sound@STAGE.INPUT [W, context + samples]`, or with dimensions of 1 between: what the input of a model takes whose
  card has `rate`, `samples` and `context`, in the input's type. Silence stands in front of the sound and behind it.

`meta.pts[k]` is where window k begins. The clock counts samples at `rate` (`time_base` is 1 / rate), exactly; its
`origin`, second 0, is the first sample that is no encoder's priming, or the first picture if that is earlier.
`meta.media.end` is where the sound ends. The row of a window has `pts[k + 1] - pts[k]` samples, the last one those to
the end. `meta.frames` and `meta.lost` count packets: those that begin in the windows and were decoded, and those that
could not be, whose place is silence.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from engines.media.audio_decode import AudioReader
from engines.media.audio_head import decoded_head
from engines.media.audio_lattice import Lattice
from engines.media.audio_sound import as_floats, model_windows
from engines.media.audio_split import AudioCut, split_audio
from engines.media.audio_survey import LEAST_RATE
from engines.media.decode import Convert
from engines.media.last import marked_last
from engines.media.medium import BaseMedium, DecodePlace, Input, Match, SplitRequest
from engines.media.segment_data import SegmentData
from engines.media.source import is_still
from engines.options import Options
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import HEAD, SOUND, Arrays, DecodePlan, Tensor
from engines.ragged import Ragged
from schemas.errors import MediaError, PipelineError
from schemas.grid import Grid
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer

_WINDOW_S = 30.0
_PART_BYTES, _PART_WINDOWS = 8 << 20, 1024
_SOUND = (b"fLaC", b"ID3", b"#!AMR", b".snd", b"caff", b"riff\x2e\x91\xcf\x11")  # the last one is w64
_OGG_SOUND = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex")
_SYNC = b"\xf1\xf9\xf2\xf3\xfa\xfb\xfc\xfd\xe2\xe3"  # second bytes of frames of ADTS and of MPEG audio


class AudioOptions(Options):
    """`rate` in Hz; left out, it is that of the pipeline's models. `channels`: of `sound`.

    `window_s`: the seconds from window to window of `sound`; the first window has half of that `halvings` times over,
    and those after it twice as many, until `window_s`. `reach_s`: by how many seconds at most a boundary is moved to
    the quietest place. `head_s`: how many seconds from second 0 on each part has, too; left out, it is what the stages
    want. `samples` and `context`: those of the models. Both are filled in when the pipeline is published.
    """

    rate: int | None = Field(default=None, ge=LEAST_RATE, le=384_000)
    channels: Literal[1, 2] = 1
    window_s: float | None = Field(default=None, ge=0.001, le=3600)
    halvings: int = Field(default=0, ge=0, le=10)
    reach_s: float = Field(default=0.0, ge=0, le=600)
    head_s: float = Field(default=0.0, ge=0, le=120)
    samples: int | None = Field(default=None, ge=1, le=1 << 26)
    context: int = Field(default=0, ge=0, le=1 << 26)


class Audio(BaseMedium[AudioOptions]):
    """See `engines.media.audio_split` and `engines.media.audio_decode`."""

    kind = "audio"
    options_class = AudioOptions

    def sniff(self, head: bytes, given: Input) -> Match:
        """A container that holds sound alone is certain; others may have pictures, too, and are left to other media."""
        if is_sound(head):
            return Match.CERTAIN
        return Match.BESIDE if is_still(head, given.source, given.name) is None else Match.NO

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Cut at multiples of 20 seconds, without decoding."""
        [given] = inputs
        lattice = self._lattice()

        def needs(start: int, end: int) -> tuple[int, int]:
            """From and until where windows that begin in a range look at the sound; nothing where there are none."""
            windows = lattice.windows(start, end)
            if not windows:
                return start, start
            first = lattice.place(max(0, windows.start - request.grid.warm_up))
            return first - lattice.margin - self._options.context, lattice.place(windows.stop) + lattice.margin

        segment_s = max(request.segment_s, lattice.step / lattice.rate)
        cut = AudioCut(lattice.rate, segment_s, needs, int(Fraction(str(self._options.head_s)) * lattice.rate))
        pieces = split_audio(given.source, cut, name=given.name, stream=self._stage.stream, limits=request.limits)
        for piece in pieces:
            end = piece.media.end or 0
            request.limits.check_windows(given.name, lattice.windows(0, end - piece.media.origin))
            yield piece

    def plan(self, grid: Grid) -> Arrays:
        """Return `sound`, unless models alone say what windows are. Raises PipelineError for options that disagree."""
        given, stage = self._options, self._stage.name
        if grid.fps is not None or grid.frames != 1:
            what = f"stage `{stage}`: audio has no frames, so neither `fps` nor `window`"
            raise PipelineError(what, "say how long its windows are: window_s = 30.0")
        lattice = self._lattice()
        if not lattice.first or 2 * lattice.reach >= lattice.first:
            what = f"stage `{stage}`: reach_s is less than half of the first window, which has {lattice.first} samples"
            raise PipelineError(what, "make it smaller, or window_s larger")
        if given.samples is not None and (given.reach_s or given.halvings or lattice.step != given.samples):
            what = f"stage `{stage}`: its model takes windows of {given.samples} samples at {given.rate} Hz"
            raise PipelineError(what, "leave out window_s, halvings and reach_s")
        if given.samples is not None and given.channels > 1:
            raise PipelineError(f"stage `{stage}`: its model takes one channel", "leave out channels")
        sound = Tensor("float32", ("W", "count", *(() if given.channels == 1 else (given.channels,))), ragged=True)
        head = Tensor("float32", ("W", "count"), ragged=True)
        return {**({SOUND: sound} if self._gives_sound else {}), **({HEAD: head} if given.head_s else {})}

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Decode block by block; `convert` is for pictures alone."""
        label = f"segment {segment.key.segment} of {segment.media.name or 'the media'}"
        if len(buffers) != (4 if self._options.head_s else 3):
            raise MediaError(f"{label} is no segment of sound of this pipeline", "publish the file again")
        reader = AudioReader(segment.media, segment.facts, buffers[:3], self._options.channels, label, tick)
        lattice = self._lattice()
        if reader.rate != lattice.rate:
            raise MediaError(f"{label} is cut for {reader.rate} Hz, and its pipeline takes {lattice.rate}")
        place.limits.check_duration(label, reader.end / reader.rate)
        owned = _owned(segment, lattice, reader.end)
        windows = range(max(0, owned.start - plan.grid.warm_up), owned.stop) if owned else owned
        place.limits.check_windows(label, windows)
        most = max(1, min(_PART_WINDOWS, _PART_BYTES // (4 * lattice.step * self._options.channels)))
        first = decoded_head(buffers[3]) if windows and self._options.head_s else np.zeros(0, np.float32)
        groups = list(_grouped(windows, most, lattice.halvings)) or [windows]
        for number, (group, last) in enumerate(marked_last(iter(groups))):
            bounds = [lattice.boundary(k, reader.end, reader.read) for k in (*group, group.stop)]
            arrays = self._arrays(plan, reader, bounds)
            if self._options.head_s:
                rows = len(group)
                arrays[HEAD] = Ragged(first if rows else first[:0], np.array([0, *[len(first)] * rows], np.int64))
            warm_up = min(len(group), max(0, owned.start - group.start))
            frames, lost = reader.counts(bounds[warm_up], bounds[-1])
            meta = PartMeta(
                key=segment.key.model_copy(update={"part": number, "last": last}),
                media=segment.media.model_copy(update={"frame_rate": lattice.windows_a_second(group.start)}),
                pts=tuple(segment.media.origin + bound for bound in bounds[:-1]),
                warm_up=warm_up,
                frames=frames,
                lost=lost,
                notes=(*segment.notes, *reader.notes) if last else (),
            )
            yield Part(meta, arrays)

    def _arrays(self, plan: DecodePlan, reader: AudioReader, bounds: Sequence[int]) -> dict[str, Value]:
        """Return the rows of windows with these boundaries."""
        before = max((each.sound.context for each in plan.sounds.values() if each.sound), default=0)
        samples = reader.read(bounds[0] - before, bounds[-1])
        arrays: dict[str, Value] = {}
        if self._gives_sound:
            offsets = np.array(bounds, np.int64) - bounds[0]
            arrays[SOUND] = Ragged(_values(samples[:, before:]), offsets)
        for name, tensor in plan.sounds.items():
            arrays[name] = model_windows(samples[0], before, len(bounds) - 1, tensor)
        return arrays

    @property
    def _gives_sound(self) -> bool:
        return self._options.samples is None or self._options.window_s is not None

    def _lattice(self) -> Lattice:
        """Return the lattice of windows. Raises PipelineError if the rate is not known."""
        given = self._options
        if given.rate is None:
            what = f"stage `{self._stage.name}`: neither it nor a model says at which rate audio is decoded"
            raise PipelineError(what, "give the decode stage a rate: rate = 16000")
        if given.samples is not None and given.window_s is None:
            return Lattice(given.rate, given.samples)
        return Lattice.of(given.rate, given.window_s or _WINDOW_S, given.reach_s, given.halvings)


def is_sound(head: bytes) -> bool:
    """Return whether a file begins as containers do that hold sound alone."""
    wave = head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    aiff = head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")
    m4a = head[4:8] == b"ftyp" and head[8:11] in (b"M4A", b"M4B")
    ogg = head.startswith(b"OggS") and any(mark in head[28:64] for mark in _OGG_SOUND)
    frames = head[:1] == b"\xff" and head[1:2] != b"" and head[1:2] in _SYNC
    return wave or aiff or m4a or ogg or frames or head.startswith(_SOUND)


def _values(samples: Array) -> Array:
    """Return samples `[channels, n]` as `[n]` float32, or `[n, 2]` of two channels."""
    values = as_floats(samples)
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.T)


def _grouped(windows: range, most: int, alone: int) -> Iterator[range]:
    """Yield the windows of each part: at most `most`; each of the first ones, up to number `alone`, is a part."""
    begin = windows.start
    while begin < windows.stop:
        end = min(windows.stop, begin + (1 if begin <= alone and alone else most))
        yield range(begin, end)
        begin = end


def _owned(segment: Segment, lattice: Lattice, end: int) -> range:
    """Return the windows that a segment owns."""
    origin = segment.media.origin
    until = end if segment.end is None else min(end, segment.end - origin)
    return lattice.windows(max(0, segment.start - origin), max(0, until))
