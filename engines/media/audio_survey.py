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
from typing import Any

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

MOST_RATE, MOST_CHANNELS = 768_000, 64
_LAST_PACKETS = 12  # enough for any decoder to give the last one whole
_MOST_TRIED = 1000  # packets until one can be decoded
_LONGEST_GAP_S = 600
_MOST_SLACK_S = Fraction(1, 50)

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AudioSurvey:
    """What is known of a sound track before it is cut. Positions are samples at `rate` after second 0 of the media.

    `origin_s`: second 0 on the container's clock: the first sample, or the first picture where that is earlier.
    `starts [P]`, `sizes [P]`: where each packet begins, and its samples. `end`: the position after the last sample.
    `slack`: by how many samples a stated time may differ from the count of samples. `first_packet`: its bytes.
    """

    codec: str
    rate: int
    origin_s: Fraction
    starts: Samples
    sizes: Samples
    end: int
    slack: int
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
    if not first:
        what = f"{label} has no samples of sound" if not pts else f"{label} has no sound that can be decoded"
        raise MediaError(what, "see whether `ffplay` plays it" if pts else "record it again")
    rate, size = _format(first, stream, label)
    exact = rate * unit <= 1
    slack = max(int(2 * unit * rate), min(int(_MOST_SLACK_S * rate), size // 2))
    sizes = _sizes(np.array(durations, np.int64), rate * unit, size, exact)
    counted = exact or bool((sizes[:-1] == size).all())
    starts, notes = _starts(
        _rounded(np.array(pts, np.int64), rate * unit), sizes, slack, _LONGEST_GAP_S * rate, counted
    )
    number, frames = first[0]
    sound_s = Fraction(pts[number] if frames[0].pts is None else frames[0].pts) * unit
    origin_s = min(sound_s, _picture_s(container, sound_s))
    begin = round((sound_s - origin_s) * rate)
    starts += begin - (int(starts[number]) + max(0, int(sizes[number]) - _samples(frames)))
    last_size, held_back = _last_sizes(stream, last)
    stated = int(sizes[-1]) + (0 if exact else slack)
    end = int(starts[-1]) + (min(last_size, stated) if last_size else int(sizes[-1])) + held_back
    limits.check_duration(label, end / rate)
    name = stream.codec_context.name
    return AudioSurvey(name, rate, origin_s, starts, sizes, max(begin, end), slack, kept, tuple(notes))


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
    if not 0 < rate <= MOST_RATE or channels > MOST_CHANNELS:
        what = f"{label} has {channels} channels at {rate} Hz"
        raise ItemTooLarge(what, f"convert it to at most {MOST_CHANNELS} channels and {MOST_RATE} Hz")
    own = stream.codec_context.frame_size if stream.codec_context.sample_rate == rate else 0
    return rate, max(own or 0, *(_samples(frames) for _, frames in first))


def _rounded(values: Samples, factor: Fraction) -> Samples:
    rounded: Samples = (2 * values * factor.numerator + factor.denominator) // (2 * factor.denominator)
    return rounded


def _sizes(durations: Samples, per_unit: Fraction, size: int, exact: bool) -> Samples:
    """Return the samples of each packet; where a duration is rounded and may be that of `size` samples, `size`."""
    stated = _rounded(durations, per_unit)
    usual = durations == 0
    if not exact:
        usual |= np.abs(stated - size) <= 1.5 * float(per_unit)
    return np.where(usual, size, stated)


def _starts(stated: Samples, sizes: Samples, slack: int, longest: int, counted: bool) -> tuple[Samples, list[str]]:
    """Return where each packet begins, and notes. `counted`: the sizes are exact, so they follow each other.

    A time before the end of the packets before it, or more than `longest` after it, begins another clock: the sound
    goes on there.
    """
    starts = stated[0] + np.cumsum(sizes) - sizes
    if counted and np.abs(stated - starts).max() <= slack:
        return starts, []
    made = stated.copy()
    expected, shift, joins, gaps = int(stated[0]), 0, 0, 0
    for number, (time, size) in enumerate(zip(stated.tolist(), sizes.tolist(), strict=True)):
        off = time + shift - expected
        if off < -slack or off > longest:
            shift -= off
            joins += 1
            off = 0
        gaps += off > slack
        made[number] = expected if counted and abs(off) <= slack else expected + off
        expected = max(expected, int(made[number]) + size)
    notes = [f"its times leap {joins} times: the sound goes on there"] if joins else []
    return made, notes + ([f"{gaps} gaps in its times are silence"] if gaps else [])


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
