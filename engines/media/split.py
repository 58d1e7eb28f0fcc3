"""Media to segments: cut at keyframes, without decoding, so that every piece can be decoded by itself.

A first pass reads the times of all packets (some 1.7 GB/s) and plans the cuts, a second one copies packets. A source
that can not be cut safely goes as one piece, as it is: without pts, with pts that repeat or run backward, with edits
inside. Damage shows up where frames are decoded.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from pydantic import ValidationError

from engines.media.animation import film_of
from engines.media.carrier import Timed, carry_picture, time_base
from engines.media.cuts import Cut, Packets, plan_cuts
from engines.media.frames import frame_step
from engines.media.keyframes import starts_afresh
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import orientation_of
from engines.media.source import Source, media_errors, open_media, open_picture, packets_of, picture_stream
from engines.media.tracks import SoundChoice, TrackPackets, Tracks, first_packets
from schemas.errors import ItemTooLarge, MediaError, fault_of
from schemas.grid import Grid
from schemas.messages import MediaInfo

MAX_PIECE_BYTES = 512 << 20
_PACKET_BYTES = 1 << 10  # what a packet takes beside its data
_CONVERT = "convert it to H.264 with a keyframe every few seconds: ffmpeg -i IN -g 100 OUT.mp4"
_AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment's share of a media, see `schemas.messages.Segment`; `tracks` is what was read beside the picture."""

    start: int
    end: int | None
    container: str
    data: bytes
    final: bool
    tracks: TrackPackets | None


class Splitter:
    """Cuts one media into pieces, each at least `segment_s` seconds long but for the last. A context manager.

    `media` is known inside the `with` block; `pieces()` reads the source once more. `sound` says what becomes of sound
    that mp4 cannot hold; None: the pieces have the picture alone. `stream` is the index of the video stream to take,
    None: FFmpeg's best. Raises UsageError, MediaError or ItemTooLarge.
    """

    media: MediaInfo

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
        with self._opened() as container:
            stream = picture_stream(container, self._label, self._limits, self._number)
            packets, first = _survey(container, stream, self._label, self._limits)
            try:
                self.media = _media_info(container, stream, packets, first, self._name, self._grid)
            except ValidationError as error:  # FFmpeg reads what a header says, however wild
                raise MediaError(f"{self._label}: {fault_of(error.errors()[0])}", _CONVERT) from error
            self._format = container.format.name.split(",")[0]
        self._check_length(packets)
        self._cuts = plan_cuts(packets, self._grid, self.media.clock, self._segment_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def pieces(self) -> Iterator[Piece]:
        """The pieces in order, one at least, the last one `final`. Holds no more packets than the largest piece has."""
        firsts = self._first_packets()
        with self._opened() as container:
            stream = picture_stream(container, self._label, self._limits, self._number)
            tracks = Tracks(container, firsts, self._sound) if self._sound else None
            reader = _Reader(container, stream, tracks, self._label)
            for cut in self._cuts:
                carried = None if cut.whole else carry_picture(stream, reader.picture(cut), cut.start)
                if carried is None and cut.first:
                    raise MediaError(f"{self._label}: its {stream.codec_context.name} video can not be cut", _CONVERT)
                end = None if carried is None else cut.end
                picture = carried or (self._format, self._everything())
                beside = reader.beside(to_the_end=end is None)
                if _stamp(self._source) not in (None, self._stamp):  # no piece is of another file than the survey
                    raise MediaError(f"{self._label} changed while it was read", "wait until nobody writes to it")
                yield Piece(cut.start, end, *picture, end is None, beside)
                if end is None:
                    return

    def _first_packets(self) -> dict[int, bytes]:
        if self._sound is None:
            return {}
        with self._opened() as container:
            return first_packets(container)

    def _opened(self) -> AbstractContextManager[InputContainer]:
        return (open_media if self._sound else open_picture)(self._source, label=self._label, limits=self._limits)

    def _check_length(self, packets: Packets) -> None:
        """Raises ItemTooLarge where the media lasts too long, or the pipeline would see too many windows of it."""
        clock, frames = self.media.clock, len(packets.keys)
        last = packets.last if packets.last is not None else clock.origin + int(frames * frame_step(self.media))
        self._limits.check_duration(self._label, clock.seconds(last))
        windows = range(frames) if self._grid.fps is None else self._grid.windows_until(clock, clock.origin, last)
        self._limits.check_windows(self._label, windows)

    def _everything(self) -> bytes:
        size = self._source.stat().st_size if isinstance(self._source, Path) else len(self._source)
        _check_size(size, self._label)
        return self._source.read_bytes() if isinstance(self._source, Path) else bytes(self._source)


def _stamp(source: Source) -> tuple[int, ...] | None:
    """What tells whether a file is still the same; nothing of bytes, which do not change.

    None when it is not there any more: who has it open still has all of it.
    """
    if not isinstance(source, Path):
        return ()
    try:
        stat = source.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class _Reader:
    """Reads packets in the source's order and deals them out to pieces."""

    def __init__(self, container: InputContainer, stream: VideoStream, tracks: Tracks | None, label: str) -> None:
        self._label = label
        self._stream = stream
        self._tracks = tracks
        self._packets = packets_of(container, stream, *(tracks.streams if tracks else ()))
        self._picture: deque[Timed] = deque()
        self._gone = 0  # how many packets of the picture were let go
        self._held_bytes = 0
        self._first = True

    def picture(self, cut: Cut) -> list[Timed]:
        """The packets of a planned piece; those before it are let go."""
        while self._gone + len(self._picture) < cut.stop and self._read():
            pass
        while self._gone < cut.first:
            self._held_bytes -= self._picture.popleft().packet.size + _PACKET_BYTES
            self._gone += 1
        return list(islice(self._picture, cut.stop - cut.first))

    def beside(self, to_the_end: bool) -> TrackPackets | None:
        """What was read beside the picture and not dealt out yet; `to_the_end`: of the rest of the source too."""
        while to_the_end and self._read():
            self._picture.clear()
            self._held_bytes = 0
        if self._tracks is None:
            return None
        if to_the_end:
            self._tracks.end()
        first, self._first = self._first, False
        return self._tracks.dealt(first)

    def _read(self) -> bool:
        """Takes one packet from the source; False at its end."""
        packet = next(self._packets, None)
        if packet is None:
            return False
        if packet.size and packet.stream_index == self._stream.index:
            self._picture.append(Timed.of(packet))
            self._held_bytes += packet.size + _PACKET_BYTES
            _check_size(self._held_bytes, self._label)
        elif packet.size and self._tracks is not None:
            self._tracks.take(packet)
        return True


def _survey(
    container: InputContainer, stream: VideoStream, label: str, limits: Limits
) -> tuple[Packets, av.VideoFrame]:
    """The times of all packets, and the first frame that decodes. Raises MediaError when there is none."""
    times: list[int | None] = []
    keys: list[bool] = []
    shown: list[bool] = []
    first: av.VideoFrame | None = None
    decoder = stream.codec_context
    for packet in packets_of(container, stream):
        first = first or _first_frame(stream, packet)
        if packet.size:
            times.append(packet.pts)
            keys.append(packet.is_keyframe and starts_afresh(decoder.name, decoder.extradata, memoryview(packet)))
            shown.append(not packet.is_discard)
    if "mp4" in container.format.name and len(times) < len(stream.index_entries):
        missing = len(stream.index_entries) - len(times)
        raise MediaError(f"{label} is truncated: {missing} of {len(stream.index_entries)} frames are missing", _AGAIN)
    if first is None:
        raise MediaError(
            f"{label}: no frame of its {decoder.name} video can be decoded",
            f"{_AGAIN}; frames of more than {limits.pixels / 1e6:g} million pixels need a higher setting max_pixels",
        )
    known = None not in times and not _in_decoding_order(container, stream)
    pts = np.array(times, np.int64) if known else None
    return Packets(pts, np.array(keys, bool), np.array(shown, bool), time_base(stream)), first


def _in_decoding_order(container: InputContainer, stream: VideoStream) -> bool:
    """Whether pts are only those of decoding: AVI stores no others, and FFmpeg does not work them out for these."""
    decoder = stream.codec_context
    return container.format.name == "avi" and decoder.name in ("h264", "hevc") and decoder.has_b_frames


def _first_frame(stream: VideoStream, packet: "Packet[VideoStream]") -> av.VideoFrame | None:
    try:
        return next(iter(stream.codec_context.decode(packet if packet.size else None)), None)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return None  # damaged: the next frame may be well, and the loss is counted where all are decoded


def _media_info(
    container: InputContainer, stream: VideoStream, packets: Packets, first: av.VideoFrame, name: str, grid: Grid
) -> MediaInfo:
    unit = time_base(stream)
    windows = Fraction(0) if grid.fps is None else grid.fps / grid.stride
    rate = stream.average_rate or stream.guessed_rate or Fraction(0)
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    last = packets.last
    origin = 0 if last is None or first.pts is None else first.pts
    if last is not None:
        length = (last - origin) * unit + (1 / rate if rate else 0)
    else:
        length = len(packets.keys) / rate if rate else Fraction(0)  # as decode numbers frames of no known time
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
        pixel_format=first.format.name,
        frame_rate=(rate.numerator, rate.denominator),
        window_rate=(windows.numerator, windows.denominator),
        sample_aspect=(aspect.numerator, aspect.denominator),
        color_range=int(first.color_range),
        color_space=int(first.colorspace),
        color_primaries=int(first.color_primaries),
        color_transfer=int(first.color_trc),
        duration_s=float(length) or float(container.duration or 0) / 1e6,
    )


def _check_size(size: int, label: str) -> None:
    if size > MAX_PIECE_BYTES:
        raise ItemTooLarge(f"{label} can not be cut into pieces below {MAX_PIECE_BYTES >> 20} MB", _CONVERT)
