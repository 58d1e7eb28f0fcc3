"""Cuts a sound track into segments without decoding it: packets and their exact places.

A segment owns the windows that nominally begin in `[start, end)`, and has the packets of the sound that they need, from
the begin of a block on (see `engines.media.audio_decode`), with those before it from which a decoder warms up.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from engines.media.audio_decode import BLOCK_S, TAIL_S, WARM_UP_S, AudioFacts, AudioReader
from engines.media.audio_head import coded_head
from engines.media.audio_survey import AudioSurvey, survey_audio
from engines.media.head import HeadTrack, Tags, holds, open_head, write_head
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.segment_data import SegmentData
from engines.media.source import Source, changed, numbered, open_media, packets_of
from engines.media.track_packets import pack_track
from schemas.errors import ItemTooLarge, MediaError, OtherMedia
from schemas.media import MediaInfo
from schemas.text import size

MAX_SEGMENT_BYTES = 512 << 20
_PACKET_BYTES = 256  # the memory of a packet in addition to its data
_HEADS = ("matroska", "nut", "mov")
_OWN_HEADS = ("wav", "asf")  # formats that alone state some parameters of their codecs
_CONVERT = "convert it: ffmpeg -i IN -vn -c:a flac OUT.flac"


@dataclass(frozen=True, slots=True)
class AudioCut:
    """How sound is cut: for a clock of `rate` Hz, into segments of at least `segment_s` seconds.

    `needs`: the samples, from one to another, that the windows look at which begin in `[start, end)`; those of the last
    segment go on to the end of the sound. `head`: how many samples from second 0 on each segment has, too.
    """

    rate: int
    segment_s: float
    needs: Callable[[int, int], tuple[int, int]] = lambda start, end: (start, end)
    head: int = 0


def audio_stream(container: InputContainer, label: str, number: int | None = None) -> AudioStream:
    """Choose a sound track: the container's stream `number`, or FFmpeg's best. Raises MediaError if there is none."""
    usable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not usable:
        hint = "give a file with sound, such as wav, mp3, flac or m4a"
        if container.streams.audio:
            raise MediaError(f"{label} has sound of a codec that FFmpeg cannot decode", hint)
        raise OtherMedia(f"{label} has no sound", hint)
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

    def reader_of(container: InputContainer) -> "_Reader":
        return _Reader(container, audio_stream(container, label, stream), surveyed, label, cut.rate)

    first: tuple[bytes, ...] = ()
    if cut.head:
        with open_media(source, label=label, limits=limits) as container:
            until = min(cut.head, (media.end or 0) - media.origin)
            packed = reader_of(container).packed(0, until)
            sound = AudioReader(media, facts.model_dump(), (head, *packed), 1, label).read(0, until)
            first = (coded_head(sound[0]),)
    with open_media(source, label=label, limits=limits) as container:
        reader = reader_of(container)
        for begin, end in _spans(surveyed, cut):
            needed, until = cut.needs(begin * cut.rate, (end or begin + 1) * cut.rate)
            yield SegmentData(
                media,
                (head, *reader.packed(needed, until if end else None), *first),
                end is None,
                media.origin + begin * cut.rate,
                media.origin + end * cut.rate if end else None,
                facts=facts.model_dump(),
                notes=() if begin else surveyed.notes,
            )


def _spans(surveyed: AudioSurvey, cut: AudioCut) -> Iterator[tuple[int, int | None]]:
    """Yield the seconds from which on and until which each segment owns windows; the last one has no end."""
    step = BLOCK_S * max(1, ceil(Fraction(str(cut.segment_s)) / BLOCK_S))
    count = max(1, ceil(Fraction(surveyed.end, surveyed.rate) / step))
    for number in range(count):
        yield number * step, (number + 1) * step if number + 1 < count else None


class _Reader:
    """Reads packets in order, and keeps those that later segments need as well."""

    def __init__(
        self, container: InputContainer, stream: AudioStream, surveyed: AudioSurvey, label: str, rate: int
    ) -> None:
        self._rate = rate  # of the positions that `packed` takes
        self._read = (packet for packet in packets_of(container, stream) if packet.size)
        self._surveyed = surveyed
        self._label = label
        self._held: deque[Packet[Any]] = deque()
        self._bytes = self._number = 0

    def packed(self, begin: int, end: int | None) -> tuple[bytes, bytes]:
        """Return the table and the bytes of the packets that samples `[begin, end)` are decoded from.

        `begin` never falls; `end` None: until the end. Both are empty in a gap of the sound.
        """
        first_s = max(0, begin // (BLOCK_S * self._rate)) * BLOCK_S - WARM_UP_S
        until = None if end is None else (Fraction(end, self._rate) + TAIL_S) * self._surveyed.rate
        packets = self._packets(first_s * self._surveyed.rate, until)
        if not packets:
            return b"", b""
        table, data = pack_track(packets)
        return table.tobytes(), data.tobytes()

    def _packets(self, begin: int, end: Fraction | None) -> "list[Packet[Any]]":
        """Return the packets that end after `begin` and begin before `end`, in samples of the track."""
        while (end is None or self._next < end) and self._take():
            pass
        while self._held and (self._held[0].pts or 0) + (self._held[0].duration or 0) <= begin:
            self._bytes -= self._held.popleft().size + _PACKET_BYTES
        return [packet for packet in self._held if end is None or (packet.pts or 0) < end]

    @property
    def _next(self) -> int:
        starts = self._surveyed.starts
        return int(starts[self._number]) if self._number < len(starts) else self._surveyed.end

    def _take(self) -> bool:
        if self._number >= len(self._surveyed.starts):
            return False
        packet = next(self._read, None)
        if packet is None:
            raise changed(self._label)
        packet.pts, packet.duration = self._next, int(self._surveyed.sizes[self._number])
        self._number += 1
        self._held.append(packet)
        self._bytes += packet.size + _PACKET_BYTES
        if self._bytes > MAX_SEGMENT_BYTES:
            what = f"{self._label}: a segment of its sound takes more than {size(MAX_SEGMENT_BYTES)} of memory"
            raise ItemTooLarge(what, _CONVERT)
        return True


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
