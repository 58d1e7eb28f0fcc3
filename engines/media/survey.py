"""Reads the times of all packets of a media, and the properties of the first frame.

Where an mp4's own tables state what FFmpeg would give, only the first packets and the keyframes are read.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.media.cuts import Packets
from engines.media.intra import are_doubtful
from engines.media.keyframes import closes, is_hidden, is_packed, starts_afresh
from engines.media.limits import Limits
from engines.media.missing import Missing
from engines.media.packet_rows import PacketRows, RowWriter
from engines.media.packets import Flag
from engines.media.places import Rows, keeps_bytes, places_of
from engines.media.read_at import ReadAt
from engines.media.sample_tables import rows_of_tables
from engines.media.source import packets_of, time_base
from engines.media.times import UNKNOWN, Mask, Stamps, Times, frame_rate, settle, unwrapped
from schemas.errors import MediaError
from schemas.wire import Buffer

AGAIN = "copy or download it again"
# containers that store no times, or decoding times only, and codecs for which FFmpeg does not compute the pts
_DECODING_ORDER = {
    "avi": ("h264", "hevc"),
    "asf": ("h264", "hevc", "mpeg1video", "mpeg2video"),
    "mxf": ("h264", "hevc"),
    "h264": ("h264",),
    "hevc": ("hevc",),
}
_WRAPPING, _CLOCK_BITS = ("mpegts", "mpeg"), 33  # ISO 13818-1, 2.4.3.7
_HIDING = ("vp8", "vp9")
_GUESSED = "h264"  # a stream that does not state how far frames are reordered makes the decoder guess, and lose some
_UNKNOWN_DEPTH = 16  # the most that a codec allows
_PROBED = 30  # packets in which a stream of MPEG-4 names its encoder
_READ_ALWAYS = 32  # packets that are read before an mp4's tables are believed
_LONGEST_GOP = 1000  # packets: tables that name keyframes more rarely may leave out some


@dataclass(frozen=True, slots=True)
class Survey:
    """`packets` with corrected times; `first` is the first frame that decodes, and `origin` its time.

    The last frame is shown until `end`.

    `rate` in frames a second; `reorder` is how many packets at most are decoded before one that is shown before them.
    `places`: where the packets lie, see `engines.media.places`; None: only a demuxer can read them.
    """

    packets: Packets
    first: av.VideoFrame
    origin: int
    end: int
    rate: Fraction
    reorder: int
    notes: tuple[str, ...]
    places: Rows | None = None


def survey(
    container: InputContainer, stream: VideoStream, label: str, limits: Limits, read: ReadAt, alone: bool = False
) -> Survey:
    """Read all packets of `stream`. Raises MediaError if no frame can be decoded, or an mp4 is truncated.

    `read` reads the bytes of the source. `alone`: no other stream of it will be read.
    """
    decoder, reader = stream.codec_context, _Reader(container, stream, alone)
    missing = Missing(container, stream, read)
    # before decoding changes it; a stream that was not probed has no pixel format and no depth yet
    depth = decoder.reorder_depth if decoder.pix_fmt or not decoder.codec.reorder else _UNKNOWN_DEPTH
    for packet in packets_of(container, stream):
        reader.take(packet)
        if reader.may_end and reader.take_tables(container, stream, read):
            break
    rows = reader.rows
    shown, order = (rows.flags & Flag.HIDDEN) == 0, reader.decoding_order
    first = _first_frame(container, stream, reader, shown, label, limits)
    unit, rate = time_base(stream), frame_rate(stream.average_rate, stream.guessed_rate)
    if first.interlaced_frame and decoder.name == _GUESSED and container.format.name == "mpegts":
        untimed = rows.pts == UNKNOWN
        shown[1:] &= ~(untimed[1:] & ~untimed[:-1])  # the second field of a frame whose first one has the time
    step, reorders = 1 / (rate * unit), bool(decoder.codec.reorder)
    keys, pts, dts = reader.believed_keys, rows.pts, rows.dts
    if container.format.name in _WRAPPING:  # FFmpeg sees only one start of the clock anew, and not in joined files
        pts, dts = unwrapped(pts, _CLOCK_BITS), unwrapped(dts, _CLOCK_BITS)
    stamps = Stamps(pts, dts, shown, unit, step, depth, reorders, order, reader.packed, keys)
    settled = settle(stamps)
    keys = _at(reader.closed, len(rows)) if settled.by_rank else keys
    packets = Packets(settled.pts, keys, shown, unit, settled.by_rank)
    origin = int(settled.pts[shown].min())
    span = (packets.last - origin) * unit
    if settled.known and span:
        rate = frame_rate(stream.average_rate, stream.guessed_rate, seen=(int(shown.sum()) - 1) / span)
    notes = list(settled.notes)
    if not settled.by_rank:
        origin, before = _start(first, rows, packets)
        if before:
            notes.append(f"the first {before} frames cannot be decoded: no keyframe is before them")
    if stream.metadata.get("alpha_mode") == "1":  # of WebM: FFmpeg's own decoders of VP8 and VP9 give only the colours
        notes.append("its alpha channel is left out")
    notes += missing.notes(rows, settled.pts if settled.known else None, origin)
    reorder = reorder_depth(settled.pts[shown]) if decoder.name == _GUESSED else 0
    end, places = _end(rows, packets, rate), places_of(container, stream, rows)
    return Survey(packets, first, origin, end, rate, reorder, tuple(notes), places)


def _first_frame(
    container: InputContainer, stream: VideoStream, reader: "_Reader", shown: Mask, label: str, limits: Limits
) -> av.VideoFrame:
    """Return the first frame that was decoded. Raises MediaError if there is none, or an mp4 is truncated."""
    listed, found = len(stream.index_entries), len(reader)
    if "mp4" in container.format.name and found < listed:
        raise MediaError(f"{label} is truncated: {listed - found} of {listed} frames are missing", AGAIN)
    if reader.first is None or not shown.any():
        raise MediaError(
            f"{label}: no frame of its {stream.codec_context.name} video can be decoded",
            f"{AGAIN}, or raise the setting max_pixels if a frame has more than {limits.pixels / 1e6:g} million pixels",
        )
    return reader.first


def reorder_depth(pts: Times) -> int:
    """Return the most packets that are decoded before one that is shown earlier; `pts` differ, in decoding order."""
    rank = np.argsort(np.argsort(pts))
    return int((np.arange(len(pts)) - rank).max(initial=0))


class _Reader:
    """Takes packets in decoding order. `afresh` and `closed` are the numbers of those that `keyframes` calls so."""

    def __init__(self, container: InputContainer, stream: VideoStream, alone: bool) -> None:
        self._decoder = stream.codec_context
        self._name = self._decoder.name
        self._codec = self._decoder.codec.canonical_name
        self._extradata = self._decoder.extradata
        self._hides = self._name in _HIDING
        self._renews = keeps_bytes(container, stream)
        self._tables_wanted = alone and self._renews
        self.decoding_order = self._name in _DECODING_ORDER.get(container.format.name, ())
        self.packed = False
        self.first: av.VideoFrame | None = None
        self.afresh: list[int] = []
        self.closed: list[int] = []
        self._writer = RowWriter()
        self._table: PacketRows | None = None

    def __len__(self) -> int:
        return len(self._table or self._writer)

    @property
    def rows(self) -> PacketRows:
        """Return what was stated of the packets."""
        return self._table or self._writer.rows

    @property
    def believed_keys(self) -> Mask:
        """Return which packets are keyframes `[P]`: the first alone, if the container's word cannot be believed."""
        keys = _at(self.afresh, len(self))
        if are_doubtful(self._codec, keys.tolist()):
            keys[1:] = False
        return keys

    @property
    def may_end(self) -> bool:
        """Return whether the tables are to be tried: once, behind the first keyframe that is not the first packet.

        By the packets in front of it, the tables are seen to name all keyframes, or not.
        """
        return self._tables_wanted and self.first is not None and len(self.afresh) > 1 and len(self) >= _READ_ALWAYS

    def take(self, packet: "Packet[VideoStream]") -> None:
        """Take one packet; an empty one at the end."""
        if self.first is None:
            self.first = self._decoded(packet)
        if not packet.size:
            return
        flags, number = 0, len(self._writer)
        if packet.is_discard or (self._hides and is_hidden(self._name, memoryview(packet))):
            flags = Flag.HIDDEN
        if self._renews and packet.has_sidedata("new_extradata"):
            flags |= Flag.NEW_EXTRADATA
        if number < _PROBED and self._name == "mpeg4" and is_packed(self._extradata, memoryview(packet)):
            self.packed = self.decoding_order = True
        if packet.is_keyframe:
            flags |= Flag.KEY
            self._take_key(number, memoryview(packet))
        self._writer.take(packet, flags)

    def take_tables(self, container: InputContainer, stream: VideoStream, read: ReadAt) -> bool:
        """Take the other packets by the tables of an mp4; return False if a demuxer might give others."""
        self._tables_wanted, taken = False, len(self._writer)
        table = rows_of_tables(container, stream, read, self._writer.rows)
        if table is None:
            return False
        keys = np.flatnonzero(table.flags & Flag.KEY)
        if np.diff(keys, append=len(table)).max() > _LONGEST_GOP:
            return False
        given = len(self.afresh)
        for number in keys[np.searchsorted(keys, taken) :].tolist():
            self._take_key(number, read(int(table.places[number]), int(table.sizes[number])))
        if len(self.afresh) < len(keys):  # what the tables call keyframes is not always one
            del self.afresh[given:]
            return False
        self._table = table
        return True

    def _take_key(self, number: int, packet: Buffer) -> None:
        if starts_afresh(self._codec, self._extradata, packet):
            self.afresh.append(number)
            if self.decoding_order and closes(self._name, self._extradata, packet):
                self.closed.append(number)

    def _decoded(self, packet: "Packet[VideoStream]") -> av.VideoFrame | None:
        try:
            return next(iter(self._decoder.decode(packet if packet.size else None)), None)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return None  # damaged: the next frame may be intact, and decoding all frames counts the loss


def _at(numbers: list[int], count: int) -> Mask:
    """Return a mask of so many packets with those numbers."""
    mask = np.zeros(count, bool)
    mask[numbers] = True
    return mask


def _start(first: av.VideoFrame, rows: PacketRows, packets: Packets) -> tuple[int, int]:
    """Return when the first frame is shown, and how many packets before it give none."""
    pts, shown = packets.pts, packets.shown
    alike = shown & (rows.pts == first.pts) if first.pts is not None else np.zeros_like(shown)
    origin = int(pts[np.argmax(alike)] if alike.any() else pts[shown].min())
    return origin, int(np.sum(pts[shown] < origin))


def _end(rows: PacketRows, packets: Packets, rate: Fraction) -> int:
    """Return when the last frame ends: by its packet, or else by the rate."""
    at = int(np.argmax(np.where(packets.shown, packets.pts, packets.pts.min())))
    own = 0 if packets.by_rank else int(rows.durations[at])
    return packets.last + (own if own > 0 else max(1, round(1 / (rate * packets.time_base))))
