"""Cuts a sound track into segments without decoding it: packets and their exact places.

A segment owns the windows that nominally begin in `[start, end)`, and has the packets of all blocks (see
`engines.media.audio_decode`) that its windows touch, with those before them from which a decoder warms up.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from engines.media.audio_decode import BLOCK_S, TAIL_S, WARM_UP_S, AudioFacts
from engines.media.audio_survey import AudioSurvey, survey_audio
from engines.media.head import HeadTrack, Tags, holds, open_head, write_head
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.segment_data import SegmentData
from engines.media.source import Source, changed, numbered, open_media, packets_of
from engines.media.track_packets import pack_track
from schemas.errors import ItemTooLarge, MediaError
from schemas.media import MediaInfo

MAX_SEGMENT_BYTES = 512 << 20
_PACKET_BYTES = 256  # the memory of a packet in addition to its data
_HEADS = ("matroska", "nut", "mov")
_OWN_HEADS = ("wav", "asf")  # formats that alone state some parameters of their codecs
_CONVERT = "convert it: ffmpeg -i IN -vn -c:a flac OUT.flac"


@dataclass(frozen=True, slots=True)
class AudioCut:
    """How sound is cut: for a clock of `rate` Hz, into segments of at least `segment_s` seconds.

    `before` and `after`: the seconds around a segment that its windows look at; `head`: the seconds from second 0 on
    that each segment has, too.
    """

    rate: int
    segment_s: float
    before: Fraction = Fraction(0)
    after: Fraction = Fraction(0)
    head: Fraction = Fraction(0)


def audio_stream(container: InputContainer, label: str, number: int | None = None) -> AudioStream:
    """Choose a sound track: the container's stream `number`, or FFmpeg's best. Raises MediaError if there is none."""
    usable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not usable:
        known = "sound of a codec that FFmpeg cannot decode" if container.streams.audio else "no sound"
        raise MediaError(f"{label} has {known}", "give a file with sound, such as wav, mp3, flac or m4a")
    best = container.streams.best("audio")
    stream = best if isinstance(best, AudioStream) and best in usable else usable[0]
    if number is not None:
        stream = numbered(usable, number, "sound track", label)
    stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def split_audio(
    source: Source,
    cut: AudioCut,
    *,
    name: str = "",
    stream: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[SegmentData]:
    """Yield the segments of a sound track, the last one `final`. Raises UsageError, MediaError, ItemTooLarge."""
    label = str(source) if isinstance(source, Path) else name or "the media"
    with open_media(source, label=label, limits=limits) as container:
        track = audio_stream(container, label, stream)
        surveyed = survey_audio(container, track, label, limits)
        container_name, head = _head(container.format.name, track, surveyed.first_packet, label)
    media = _media_info(surveyed, cut, name or (source.name if isinstance(source, Path) else ""))
    facts = AudioFacts(
        container=container_name,
        rate=surveyed.rate,
        end=surveyed.end,
        slack=surveyed.slack,
        size=surveyed.size,
    )
    with open_media(source, label=label, limits=limits) as container:
        reader = _Reader(container, audio_stream(container, label, stream), surveyed, label, cut.head)
        step = BLOCK_S * max(1, ceil(Fraction(str(cut.segment_s)) / BLOCK_S))
        count = max(1, ceil(Fraction(surveyed.end, surveyed.rate) / step))
        for number in range(count):
            final = number + 1 == count
            begin, end = number * step, None if final else (number + 1) * step
            first_block = max(0, int((begin - cut.before) // BLOCK_S))
            last = None if end is None else (end + cut.after + TAIL_S) * surveyed.rate
            packets = reader.with_first((first_block * BLOCK_S - WARM_UP_S) * surveyed.rate, last)
            yield SegmentData(
                media,
                (head, *_packed(packets)),
                final,
                media.origin + begin * cut.rate,
                None if end is None else media.origin + end * cut.rate,
                facts=facts.model_dump(),
                notes=() if number else surveyed.notes,
            )


class _Reader:
    """Reads packets in order, and keeps those that later segments need as well: the first `head_s` seconds, too."""

    def __init__(
        self, container: InputContainer, stream: AudioStream, surveyed: AudioSurvey, label: str, head_s: Fraction
    ) -> None:
        self._first: list[Packet[Any]] = []
        self._first_end = (head_s + TAIL_S) * surveyed.rate if head_s else 0
        self._read = (packet for packet in packets_of(container, stream) if packet.size)
        self._surveyed = surveyed
        self._label = label
        self._held: deque[Packet[Any]] = deque()
        self._bytes = self._number = 0

    def packets(self, begin: int, end: Fraction | None) -> "list[Packet[Any]]":
        """Return the packets that end after `begin` and begin before `end`, in samples; `begin` never falls."""
        while (end is None or self._next < end) and self._take():
            pass
        while self._held and (self._held[0].pts or 0) + (self._held[0].duration or 0) <= begin:
            self._bytes -= self._held.popleft().size + _PACKET_BYTES
        return [packet for packet in self._held if end is None or (packet.pts or 0) < end]

    def with_first(self, begin: int, end: Fraction | None) -> "list[Packet[Any]]":
        """Return the first packets of the track, and behind them those of `packets`."""
        found = self.packets(begin, end)
        own = (found[0].pts or 0) if found else self._surveyed.end
        return [*(packet for packet in self._first if (packet.pts or 0) < own), *found]

    @property
    def _next(self) -> int:
        starts = self._surveyed.starts
        return int(starts[self._number]) if self._number < len(starts) else self._surveyed.end

    def _take(self) -> bool:
        packet = next(self._read, None)
        if (packet is None) != (self._number >= len(self._surveyed.starts)):
            raise changed(self._label)
        if packet is None:
            return False
        packet.pts, packet.duration = self._next, int(self._surveyed.sizes[self._number])
        self._number += 1
        self._held.append(packet)
        if packet.pts < self._first_end:
            self._first.append(packet)
        self._bytes += packet.size + _PACKET_BYTES
        if self._bytes > MAX_SEGMENT_BYTES:
            what = f"{self._label}: a segment of its sound takes more than {MAX_SEGMENT_BYTES >> 20} MB of memory"
            raise ItemTooLarge(what, _CONVERT)
        return True


def _packed(packets: "list[Packet[Any]]") -> tuple[bytes, bytes]:
    """Return the table of packets and their bytes; both are empty in a gap of the sound."""
    if not packets:
        return b"", b""
    table, data = pack_track(packets)
    return table.tobytes(), data.tobytes()


def _head(source: str, stream: AudioStream, sample: bytes, label: str) -> tuple[str, bytes]:
    """Return a small file that has the parameters of a track's codec, and its format."""
    track = HeadTrack(stream, sample)
    own = (*(each for each in _OWN_HEADS if each == source), *_HEADS)
    found = {name: write_head(name, [track], Tags()) for name in own if holds(name, track)}
    decoder = stream.codec_context.codec.name
    same = [name for name, head in found.items() if _decoder_name(name, head) == decoder]
    for name in (*same, *found):  # several decoders exist of some codecs
        return name, found[name]
    what = f"{label} has sound of codec {stream.codec_context.name}, whose parameters cannot be sent"
    raise MediaError(what, _CONVERT)


def _decoder_name(container: str, head: bytes) -> str:
    with open_head(container, head) as opened:
        return str(opened.streams[0].codec_context.codec.name)


def _media_info(surveyed: AudioSurvey, cut: AudioCut, name: str) -> MediaInfo:
    origin = round(surveyed.origin_s * cut.rate)
    end = origin + ceil(Fraction(surveyed.end * cut.rate, surveyed.rate))
    return MediaInfo(
        kind="audio", name=name, codec=surveyed.codec, time_base=(1, cut.rate), origin=origin, last=None, end=end
    )
