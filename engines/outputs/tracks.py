"""Writes the tracks beside the picture in a finished file: created by the head of `split`, filled packet by packet."""

from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from av.container import InputContainer, OutputContainer
from av.packet import Packet

from engines.media.head import Tags, add_covers, covers_in, name_track, names_of, open_head
from engines.media.track_packets import unpack_track
from engines.part import Array
from schemas.errors import MediaError
from schemas.segments import Fragment, TrackInfo
from schemas.wire import Buffer

_LONGEST_GAP = 1 << 31  # the most ticks between packets that mp4 can write


class OutputTrack:
    """One track of the output.

    Matroska stores whole milliseconds, which are no whole number of samples. A packet that begins where the one before
    it ends, within that precision, is set exactly there; so rounding leaves no gaps in the sound. The same applies to a
    packet whose time does not rise.
    """

    def __init__(self, stream: Any, info: TrackInfo) -> None:
        self._stream = stream
        self._tick = Fraction(*info.time_base)
        self._frame = info.frame
        self._next: Fraction | None = None  # seconds; the end of the packet before
        self._last: int | None = None
        self._step = 1
        rate = stream.codec_context.sample_rate if stream.type == "audio" else 0
        self._base = Fraction(1, rate) if rate else self._tick
        self.moved_at: Fraction | None = None  # seconds; the first time that did not rise

    def place(self, packet: "Packet[Any]", shift: Fraction) -> Fraction:
        """Assign the packet to this track, `shift` seconds later; return its time in seconds."""
        time, length = self._time(packet, shift), self._length(packet)
        pts = round(time / self._base)
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._step = pts - self._last if self._last is not None else self._step
        self._next, self._last = time + length if length else None, pts
        packet.stream, packet.time_base = self._stream, self._base
        packet.pts = packet.dts = pts
        packet.duration = max(0, round(length / self._base)) or self._step  # FFmpeg skips a last packet of no length
        return time

    def _time(self, packet: "Packet[Any]", shift: Fraction) -> Fraction:
        time = (packet.pts or 0) * self._tick + shift
        if self._last is None or self._stream.type != "audio":
            return time
        after = (self._last + 1) * self._base if self._next is None else self._next
        if not 0 < time / self._base - self._last < _LONGEST_GAP:
            if self.moved_at is None and abs(time - after) >= self._tick:
                self.moved_at = time
            return after
        return after if self._next is not None and abs(time - after) < self._tick else time

    def _length(self, packet: "Packet[Any]") -> Fraction:
        declared = (packet.duration or 0) * self._tick
        frame = self._frame * self._base if self._stream.type == "audio" else Fraction(0)
        return frame if frame and (not declared or abs(frame - declared) < max(self._tick, self._base)) else declared


class OutputTracks:
    """All tracks beside the picture; `container` is the format of the finished file."""

    def __init__(self, fragment: Fragment, head: Buffer) -> None:
        """`fragment` is the first one. Raises MediaError if the data is not a head."""
        self.container = fragment.container
        self._infos = fragment.tracks
        self._source: InputContainer = open_head(fragment.container, head)
        if len(self._source.streams) < len(self._infos):
            raise MediaError(f"the head of the job does not have all of its {len(self._infos)} tracks")
        self._tracks: list[OutputTrack] = []
        self._covers: list[Packet[Any]] = []
        self._waiting: list[deque[tuple[Fraction, Packet[Any]]]] = []  # by track: packets and their times in seconds

    @property
    def rates(self) -> list[int]:
        """Return the ticks a second of the tracks' clocks."""
        sounds = self._source.streams.audio
        return [stream.codec_context.sample_rate for stream in sounds if stream.codec_context.sample_rate]

    def add_to(self, output: OutputContainer, shift: Fraction) -> None:
        """Add the tracks, chapters and tags to a file whose head is not written yet."""
        for stream, info in zip(self._source.streams, self._infos, strict=False):
            copy = output.add_stream_from_template(stream, opaque=True)
            name_track(copy, *names_of(stream), stream.disposition)
            copy.time_base = Fraction(*info.time_base)
            self._tracks.append(OutputTrack(copy, info))
            self._waiting.append(deque())
        self._covers = add_covers(output, covers_in(self._source))
        tags = Tags.of(self._source)
        output.metadata.update(tags.words)
        output.set_chapters([_moved(chapter, shift) for chapter in tags.chapters])
        self._source.close()

    def take(self, arrays: Mapping[str, Array], shift: Fraction) -> None:
        """Take the packets of a fragment. Raises MediaError for arrays of another form."""
        for number, (track, waiting) in enumerate(zip(self._tracks, self._waiting, strict=True)):
            table, data = arrays.get(f"table{number}"), arrays.get(f"data{number}")
            for packet in unpack_track(table, data) if table is not None and data is not None else ():
                waiting.append((track.place(packet, shift), packet))

    def due(self, time: Fraction | None = None) -> "Iterator[Packet[Any]]":
        """Yield the packets up to `time` seconds, ready to mux; None: all that are left."""
        while self._covers:
            yield self._covers.pop()
        for waiting in self._waiting:
            while waiting and (time is None or waiting[0][0] <= time):
                yield waiting.popleft()[1]

    @property
    def notes(self) -> list[str]:
        """Return notes on anything unusual."""
        return [
            f"the times of sound track {number} do not rise, first at {float(track.moved_at):.3f} s: "
            "those packets were put behind the ones before them"
            for number, track in enumerate(self._tracks, 1)
            if track.moved_at is not None
        ]


def _moved(chapter: Any, shift: Fraction) -> Any:
    late = round(shift / chapter["time_base"])
    return chapter | {"start": chapter["start"] + late, "end": chapter["end"] + late}
