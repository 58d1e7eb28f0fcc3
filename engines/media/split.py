"""Cuts media into segments at keyframes, without decoding. Each segment can be decoded by itself.

A first pass reads the times of all packets (some 1.7 GB/s), corrects them and plans the cuts; a second pass copies
packets. A source that cannot be cut anywhere becomes one segment. Damage is found where frames are decoded.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from pydantic import ValidationError

from engines.media.animation import film_of
from engines.media.cuts import Cut, Packets, plan_cuts
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import orientation_of
from engines.media.packets import Coded, Flag, carried_side, pack, parameters_of, side_data
from engines.media.places import CONVERT, PACKET_BYTES, PlacedPackets, check_bytes, known_flags
from engines.media.segment_data import SegmentData
from engines.media.source import (
    Source,
    changed,
    media_errors,
    open_media,
    open_picture,
    packets_of,
    picture_stream,
    reading,
    time_base,
)
from engines.media.survey import Survey, survey
from engines.media.tracks import SoundChoice, TrackPackets, Tracks, first_packets
from schemas.errors import MediaError, format_field_error
from schemas.grid import Clock, Grid
from schemas.media import CodecParameters, MediaInfo
from schemas.wire import Pieces


class Splitter:
    """Cuts one media into segments, each at least `segment_s` seconds long, except the last. A context manager.

    `media` and `surveyed` are known inside the `with` block; `segments()` reads the source a second time. `sound`
    chooses what happens to sound that mp4 cannot hold; None: the segments have the picture alone. `stream` is the index
    of the video stream, None: FFmpeg's best. Raises UsageError, MediaError or ItemTooLarge.
    """

    media: MediaInfo
    surveyed: Survey

    def __init__(
        self,
        source: Source,
        grid: Grid,
        segment_s: float,
        *,
        name: str = "",
        sound: SoundChoice | None = "copy",
        stream: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._source = source
        self._grid = grid
        self._segment_s = segment_s
        self._name = name or (source.name if isinstance(source, Path) else "")
        self._label = str(source) if isinstance(source, Path) else self._name or "the media"
        self._sound = sound
        self._limits = limits
        self._number = stream

    def __enter__(self) -> Self:
        with media_errors(self._label):
            self._source = film_of(self._source, self._limits)
        self._stamp = _stamp(self._source)
        with self._opened() as container, reading(self._source) as read:
            stream = picture_stream(container, self._label, self._limits, self._number)
            self.surveyed = survey(container, stream, self._label, self._limits, read, alone=not self._sound)
            try:
                self.media = _media_info(stream, self.surveyed, self._name, self._grid)
            except ValidationError as error:  # FFmpeg passes on any value of a header
                raise MediaError(f"{self._label}: {format_field_error(error.errors()[0])}", CONVERT) from error
        packets = self.surveyed.packets
        self._check_length(packets)
        self._cuts = plan_cuts(packets, self._grid, self.media.clock, self._segment_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def segments(self) -> Iterator[SegmentData]:
        """Yield the segments in order: at least one, the last one `final`. Holds at most the packets of the largest
        segment.
        """
        firsts = self._first_packets()
        with self._opened() as container:
            stream = picture_stream(container, self._label, self._limits, self._number)
            tracks = Tracks(container, firsts, self._sound) if self._sound else None
            codec = parameters_of(stream, self.surveyed.reorder)
            extradata = stream.codec_context.extradata
            reader: _Reader | PlacedPackets
            places = None if tracks else self.surveyed.places
            with reading(self._source) as read:
                if places is None:
                    reader = _Reader(container, stream, self.surveyed.packets, tracks, self._label)
                else:
                    reader = PlacedPackets(self.surveyed.packets, places, read, self._label)
                yield from self._cut_by(reader, codec, extradata)

    def _cut_by(
        self, reader: "_Reader | PlacedPackets", codec: CodecParameters, extradata: bytes | None
    ) -> Iterator[SegmentData]:
        for number, cut in enumerate(self._cuts):
            buffers = reader.packed(cut, extradata)
            beside = reader.beside(to_the_end=cut.end is None)
            if _stamp(self._source) not in (None, self._stamp):  # no segment is of another file than the survey
                raise changed(self._label)
            notes = () if number else self.surveyed.notes
            by_rank, final = self.surveyed.packets.by_rank, cut.end is None
            yield SegmentData(
                self.media, buffers, final, cut.start, cut.end, codec, by_rank, notes=notes, tracks=beside
            )

    def _first_packets(self) -> dict[int, bytes]:
        if self._sound is None:
            return {}
        with self._opened() as container:
            return first_packets(container)

    def _opened(self) -> AbstractContextManager[InputContainer]:
        return (open_media if self._sound else open_picture)(self._source, label=self._label, limits=self._limits)

    def _check_length(self, packets: Packets) -> None:
        """Raises ItemTooLarge if the media is too long, or has too many windows for the pipeline."""
        self._limits.check_frames(self._label, self._grid, self.media.clock, packets.last, len(packets.keys))


def _stamp(source: Source) -> tuple[int, ...] | None:
    """Return the properties by which a changed file is recognised; empty for bytes, which do not change.

    None if the file was deleted: a process that has it open can still read all of it.
    """
    if not isinstance(source, Path):
        return ()
    try:
        stat = source.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class _Reader:
    """Reads packets in the source's order and assigns them to segments."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        settled: Packets,
        tracks: Tracks | None,
        label: str,
    ) -> None:
        self._label = label
        self._times: list[int] = settled.pts.tolist()
        self._flags: list[int] = known_flags(settled).tolist()
        self._stream = stream
        self._tracks = tracks
        self._packets = packets_of(container, stream, *(tracks.streams if tracks else ()))
        self._picture: deque[Coded] = deque()
        self._gone = 0  # how many packets of the picture were discarded
        self._picture_bytes = 0  # in memory, of the picture
        self._beside_bytes = 0  # and of the tracks beside it
        self._beside = 0  # packets
        self._first = True

    def packed(self, cut: Cut, extradata: bytes | None) -> tuple[bytes, Pieces]:
        """Return the buffers of a planned segment; earlier packets are discarded."""
        return pack(extradata, self.picture(cut))

    def picture(self, cut: Cut) -> list[Coded]:
        """Return the packets of a planned segment; earlier ones are discarded."""
        while self._gone + len(self._picture) < cut.stop and self._read():
            pass
        if self._gone + len(self._picture) < cut.stop:
            raise changed(self._label)
        gone = [self._picture.popleft() for _ in range(cut.first - self._gone)]
        self._picture_bytes -= sum(coded.packet.size + PACKET_BYTES for coded in gone)
        self._gone += len(gone)
        if gone and (kept := dict(carried_side(gone))):
            first = self._picture[0]
            self._picture[0] = first._replace(side=tuple((kept | dict(first.side)).items()))
        return list(islice(self._picture, cut.stop - cut.first))

    def beside(self, to_the_end: bool) -> TrackPackets | None:
        """Return the packets of other tracks that were read and not yet assigned; `to_the_end`: read the whole rest
        first.
        """
        while to_the_end and self._read():
            self._picture.clear()
            self._picture_bytes = 0
        if self._tracks is None:
            return None
        if to_the_end:
            self._tracks.end()
        self._beside_bytes = self._beside = 0
        first, self._first = self._first, False
        return self._tracks.dealt(first)

    def _read(self) -> bool:
        """Read one packet of the source; return False at its end."""
        packet = next(self._packets, None)
        if packet is None:
            return False
        if packet.size and packet.stream_index == self._stream.index:
            self._picture.append(self._coded(packet, self._gone + len(self._picture)))
            self._picture_bytes += packet.size + PACKET_BYTES
        elif packet.size and self._tracks is not None:
            self._tracks.take(packet)
            self._beside_bytes += packet.size + PACKET_BYTES
            self._beside += 1
        check_bytes(self._label, self._picture_bytes + self._beside_bytes, len(self._picture) + self._beside)
        return True

    def _coded(self, packet: "Packet[VideoStream]", number: int) -> Coded:
        if number >= len(self._times):
            raise changed(self._label)
        flags = self._flags[number]
        if packet.is_keyframe:
            flags |= Flag.KEY
        if packet.is_corrupt:
            flags |= Flag.CORRUPT
        return Coded(packet, flags, self._times[number], side_data(packet))


def _media_info(stream: VideoStream, surveyed: Survey, name: str, grid: Grid) -> MediaInfo:
    unit, first, origin = time_base(stream), surveyed.first, surveyed.origin
    rate, last = grid.shown(Clock(unit, origin), surveyed.rate, surveyed.packets.last)
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    return MediaInfo(
        kind="video",
        name=name,
        codec=stream.codec_context.name,
        width=first.width,
        height=first.height,
        orientation=orientation_of(first),
        time_base=(unit.numerator, unit.denominator),
        origin=origin,
        last=last,
        end=surveyed.end,
        pixel_format=first.format.name,
        frame_rate=(rate.numerator, rate.denominator),
        sample_aspect=(aspect.numerator, aspect.denominator),
        color_range=int(first.color_range),
        color_space=int(first.colorspace),
        color_primaries=int(first.color_primaries),
        color_transfer=int(first.color_trc),
    )
