"""Reads the times of the packets of a sound track, and computes where in the sound each one begins, to the sample.

Containers state times in units of their own, some of milliseconds. Packets whose number of samples is known follow each
other without rounding, as long as the stated times agree; otherwise the stated time counts. So nothing drifts, whatever
the length. Encoders begin with samples that are no sound ("priming") and end with padding: the decoder leaves them out
by what the container says, so the first and the last packets are decoded here.
"""

from array import array
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from engines.media.limits import Limits
from engines.media.source import packets_of, time_base
from schemas.errors import ItemTooLarge, MediaError
from schemas.text import count

LEAST_RATE, MOST_RATE = 100, 768_000  # a filter between lower rates looks further than a block's tail
MOST_CHANNELS = 64
_LAST_PACKETS = 12  # enough for any decoder to give the last one whole
_MOST_TRIED = 1000  # packets until one can be decoded
_LONGEST_GAP_S = 600
_STATING = frozenset(("flac", "wav", "w64", "aiff", "caf", "mov", "mp4", "ogg"))  # that do not estimate the duration
_MOST_SLACK_S = Fraction(1, 50)
_MPEG = frozenset(("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float"))

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AudioSurvey:
    """What is known of a sound track before it is cut. Positions are samples at `rate` after second 0 of the media.

    `origin_s`: second 0 on the container's clock: the first sample, or the first picture where that is earlier.
    `starts [P]`, `sizes [P]`: where each packet begins, and its samples. `end`: the position after the last sample.
    `slack`: by how many samples a stated time may differ from the count of samples. `size`: the usual size of a packet.
    `first_packet`: its bytes.
    """

    codec: str
    rate: int
    origin_s: Fraction
    starts: Samples
    sizes: Samples
    end: int
    slack: int
    size: int
    first_packet: bytes
    notes: tuple[str, ...] = ()


def survey_audio(container: InputContainer, stream: AudioStream, label: str, limits: Limits) -> AudioSurvey:
    """Read all packets of a track. Raises MediaError if it has no sound, ItemTooLarge if it is too long."""
    pts, durations, kept = array("q"), array("q"), b""
    first: list[tuple[int, list[AudioFrame]]] = []  # the number of the packet, and what it gave
    last: deque[Packet[Any]] = deque(maxlen=_LAST_PACKETS)
    unit = time_base(stream)
    for packet in packets_of(container, stream):
        if not packet.size:
            continue
        kept = kept or bytes(packet)
        if len(first) < 3 and len(pts) < _MOST_TRIED:
            frames = _decoded(stream, packet)
            first += [(len(pts), frames)] if frames else []
        ahead = pts[-1] + durations[-1] if pts else 0
        pts.append(ahead if packet.pts is None else packet.pts)
        durations.append(max(0, packet.duration or 0))
        last.append(packet)
        limits.check_duration(label, float((pts[-1] - pts[0]) * unit))
    while len(last) > 1 and _is_tag(stream, last[-1]):
        del pts[-1], durations[-1], last[-1]
    _check_decoded(label, len(pts), len(first))
    rate, size = _format(first, stream, label)
    per_unit = rate * unit
    sizes = _sizes(np.array(durations, np.int64), per_unit, size)
    counted = per_unit <= 1 or bool((sizes[:-1] == size).all())
    rules = Rules(size, max(1, int(2 * per_unit)), min(int(_MOST_SLACK_S * rate), size // 2), rate, counted)
    starts, notes = placed(_rounded(np.array(pts, np.int64), per_unit), sizes, rules)
    number, frames = first[0]
    sound_s = Fraction(pts[number] if frames[0].pts is None else frames[0].pts) * unit
    origin_s = min(sound_s, _picture_s(container, sound_s))
    begin = round((sound_s - origin_s) * rate)
    starts += begin - (int(starts[number]) + max(0, int(sizes[number]) - _samples(frames)))
    last_size, held_back = _last_sizes(stream, last)
    stated = int(sizes[-1]) + (0 if per_unit <= 1 else rules.slack)
    end = int(starts[-1]) + (min(last_size, stated) if last_size else int(sizes[-1])) + held_back
    if end <= begin:
        raise MediaError(f"{label} has no samples of sound", "copy or record it again")
    limits.check_duration(label, end / rate)
    notes += _missing(container, stream, sound_s + Fraction(end - begin, rate))
    name = stream.codec_context.name
    return AudioSurvey(name, rate, origin_s, starts, sizes, end, rules.slack, size, kept, tuple(notes))


def _check_decoded(label: str, packets: int, decoded: int) -> None:
    if not packets:
        raise MediaError(f"{label} has no samples of sound", "record it again")
    if not decoded:
        raise MediaError(f"{label} has no sound that can be decoded", "see whether `ffplay` plays it")


def _is_tag(stream: AudioStream, packet: "Packet[Any]") -> bool:
    """Return whether a packet of MPEG audio is none: tags of titles and lyrics stand behind the last one."""
    head = bytes(memoryview(packet)[:2])
    return stream.codec_context.name in _MPEG and (head[:1] != b"\xff" or head[1:] < b"\xe0")


def _decoded(stream: AudioStream, packet: "Packet[Any] | None") -> list[AudioFrame]:
    """Return the frames of a packet; none if it is damaged."""
    try:
        return [frame for frame in stream.codec_context.decode(packet) if isinstance(frame, AudioFrame)]
    except av.error.FFmpegError:
        return []


def _format(first: list[tuple[int, list[AudioFrame]]], stream: AudioStream, label: str) -> tuple[int, int]:
    """Return the rate of a track in Hz, and the usual number of samples of its packets."""
    frame = first[-1][1][-1]
    rate, channels = frame.sample_rate, frame.layout.nb_channels
    if not LEAST_RATE <= rate <= MOST_RATE or channels > MOST_CHANNELS:
        what = f"{label} has {count(channels, 'channel')} at {rate} Hz"
        raise ItemTooLarge(what, f"convert it to at most {MOST_CHANNELS} channels, at {LEAST_RATE} to {MOST_RATE} Hz")
    own = stream.codec_context.frame_size if stream.codec_context.sample_rate == rate else 0
    return rate, max(own or 0, *(_samples(frames) for _, frames in first))


def _rounded(values: Samples, factor: Fraction) -> Samples:
    rounded: Samples = (2 * values * factor.numerator + factor.denominator) // (2 * factor.denominator)
    return rounded


def _sizes(durations: Samples, per_unit: Fraction, size: int) -> Samples:
    """Return the samples of each packet; where a duration is rounded and may be that of `size` samples, `size`."""
    stated = _rounded(durations, per_unit)
    usual = durations == 0
    if per_unit > 1:
        usual |= np.abs(stated - size) <= 1.5 * float(per_unit)
    return np.where(usual, size, stated)


class Rules(NamedTuple):
    """How times are read: the usual `size` of a packet, and by how many samples rounding moves a time.

    `counted`: the sizes are exact, so packets that follow each other are counted.
    """

    size: int
    rounding: int
    most_slack: int
    rate: int
    counted: bool

    @property
    def slack(self) -> int:
        """Return by how many samples a time may differ from the count of samples before it."""
        return max(self.rounding, self.most_slack)

    def gap(self, off: int) -> int:
        """Return how long a gap is whose times say `off`: a number of packets, if these are rounded."""
        packets = self.size * round(off / self.size)
        return packets if self.counted and packets and abs(off - packets) <= self.rounding else off


def placed(stated: Samples, sizes: Samples, rules: Rules) -> tuple[Samples, list[str]]:
    """Return where each packet begins, and notes.

    A time before the end of the packets before it, or more than ten minutes after it, begins another clock: the sound
    goes on there.
    """
    starts = stated[0] + np.cumsum(sizes) - sizes
    if rules.counted and np.abs(stated - starts).max() <= rules.slack:
        return starts, []
    made: list[int] = []
    longest, slack = _LONGEST_GAP_S * rules.rate, rules.slack
    expected, shift, joins, gaps = int(stated[0]), 0, 0, 0
    for time, size in zip(stated.tolist(), sizes.tolist(), strict=True):
        off = time + shift - expected
        if off < -slack or off > longest:
            shift -= off
            joins += 1
            off = 0
        elif off > slack:
            gaps += 1
            off = rules.gap(off)
        elif rules.counted:
            off = 0
        made.append(expected + off)
        expected = max(expected, expected + off + size)
    notes = [f"its times leap {count(joins, 'time')}: the sound goes on there"] if joins else []
    return np.array(made, np.int64), notes + ([f"silence stands for {count(gaps, 'gap')} in its times"] if gaps else [])


def _missing(container: InputContainer, stream: AudioStream, end_s: Fraction) -> list[str]:
    """Return a note if the container states that the sound goes on for more than a second after its last packet."""
    if stream.duration is None or not _STATING & {*container.format.name.split(",")}:
        return []
    stated_s = ((stream.start_time or 0) + stream.duration) * time_base(stream)
    if stated_s - end_s <= 1:
        return []
    return [f"its sound ends {float(stated_s - end_s):.2f} s before the end that its container states: it is truncated"]


def _picture_s(container: InputContainer, otherwise: Fraction) -> Fraction:
    """Return when the first picture is shown, on the container's clock."""
    best = container.streams.best("video")
    if best is None or best.start_time is None or best.time_base is None or best.disposition & 0x400:
        return otherwise
    return best.start_time * best.time_base


def _last_sizes(stream: AudioStream, packets: "deque[Packet[Any]]") -> tuple[int, int]:
    """Return the samples of the last packet without its padding, 0 if it is damaged, and those held back behind it."""
    stream.codec_context.flush_buffers()
    frames: list[AudioFrame] = []
    for packet in packets:
        frames = _decoded(stream, packet)
    return _samples(frames), _samples(_decoded(stream, None))


def _samples(frames: list[AudioFrame]) -> int:
    return sum(frame.samples for frame in frames)
