"""Reads all packets of a media once: their times, and the properties of the first frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.media.cuts import Packets
from engines.media.intra import are_doubtful
from engines.media.keyframes import closes, is_hidden, is_packed, starts_afresh
from engines.media.limits import Limits
from engines.media.missing import Missing
from engines.media.places import Places, Rows
from engines.media.read_at import ReadAt
from engines.media.source import packets_of, time_base
from engines.media.times import Stamps, frame_rate, settle, unwrapped
from schemas.errors import MediaError

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


def survey(container: InputContainer, stream: VideoStream, label: str, limits: Limits, read: ReadAt) -> Survey:
    """Read all packets of `stream`. Raises MediaError if no frame can be decoded, or an mp4 is truncated.

    `read` reads the bytes of the source.
    """
    decoder, reader = stream.codec_context, _Reader(container, stream)
    missing, places = Missing(container, stream, read), Places(container, stream)
    # before decoding changes it; a stream that was not probed has no pixel format and no depth yet
    depth = decoder.reorder_depth if decoder.pix_fmt or not decoder.codec.reorder else _UNKNOWN_DEPTH
    for packet in packets_of(container, stream):
        reader.take(packet)
        if packet.size:
            missing.take(packet)
            places.take(packet)
    first = _first_frame(container, stream, reader, label, limits)
    unit, rate = time_base(stream), frame_rate(stream.average_rate, stream.guessed_rate)
    shown, order = np.array(reader.shown, bool), reader.decoding_order
    if first.interlaced_frame and decoder.name == _GUESSED and container.format.name == "mpegts":
        untimed = np.array([pts is None for pts in reader.pts], bool)
        shown[1:] &= ~(untimed[1:] & ~untimed[:-1])  # the second field of a frame whose first one has the time
    step, reorders = 1 / (rate * unit), bool(decoder.codec.reorder)
    keys = reader.believed_keys
    pts, dts = reader.pts, reader.dts
    if container.format.name in _WRAPPING:  # FFmpeg sees only one start of the clock anew, and not in joined files
        pts, dts = unwrapped(pts, _CLOCK_BITS), unwrapped(dts, _CLOCK_BITS)
    stamps = Stamps(pts, dts, shown, unit, step, depth, reorders, order, reader.packed, keys)
    settled = settle(stamps)
    keys = np.array(reader.closed, bool) if settled.by_rank else keys
    packets = Packets(settled.pts, keys, shown, unit, settled.by_rank)
    origin = int(settled.pts[shown].min())
    span = (packets.last - origin) * unit
    if settled.known and span:
        rate = frame_rate(stream.average_rate, stream.guessed_rate, seen=(int(shown.sum()) - 1) / span)
    notes = list(settled.notes)
    if not settled.by_rank:
        origin, before = _start(reader, packets)
        if before:
            notes.append(f"the first {before} frames cannot be decoded: no keyframe is before them")
    if stream.metadata.get("alpha_mode") == "1":  # of WebM: FFmpeg's own decoders of VP8 and VP9 give only the colours
        notes.append("its alpha channel is left out")
    notes += missing.notes(settled.pts if settled.known else None, origin)
    reorder = reorder_depth(settled.pts[shown].tolist()) if decoder.name == _GUESSED else 0
    return Survey(packets, first, origin, _end(reader, packets, rate), rate, reorder, tuple(notes), places.rows)


def _first_frame(
    container: InputContainer, stream: VideoStream, reader: "_Reader", label: str, limits: Limits
) -> av.VideoFrame:
    """Return the first frame that was decoded. Raises MediaError if there is none, or an mp4 is truncated."""
    listed, found = len(stream.index_entries), len(reader.keys)
    if "mp4" in container.format.name and found < listed:
        raise MediaError(f"{label} is truncated: {listed - found} of {listed} frames are missing", AGAIN)
    if reader.first is None or not any(reader.shown):
        raise MediaError(
            f"{label}: no frame of its {stream.codec_context.name} video can be decoded",
            f"{AGAIN}; frames of more than {limits.pixels / 1e6:g} million pixels need a higher setting max_pixels",
        )
    return reader.first


def reorder_depth(pts: Sequence[int]) -> int:
    """Return the most packets that are decoded before one that is shown earlier; `pts` in decoding order."""
    rank = {time: place for place, time in enumerate(sorted(pts))}
    return max((place - rank[time] for place, time in enumerate(pts)), default=0)


class _Reader:
    """Takes packets in decoding order."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._decoder = stream.codec_context
        self._name = self._decoder.name
        self._codec = self._decoder.codec.canonical_name
        self._extradata = self._decoder.extradata
        self.decoding_order = self._name in _DECODING_ORDER.get(container.format.name, ())
        self.packed = False
        self.first: av.VideoFrame | None = None
        self.pts: list[int | None] = []
        self.lasts: list[int] = []  # the duration of each; 0 if its container states none
        self.dts: list[int | None] = []
        self.shown: list[bool] = []
        self.keys: list[bool] = []
        self.closed: list[bool] = []

    @property
    def believed_keys(self) -> npt.NDArray[np.bool_]:
        """Return which packets are keyframes `[P]`: the first alone, if the container's word cannot be believed."""
        keys = np.array(self.keys, bool)
        if are_doubtful(self._codec, self.keys):
            keys[1:] = False
        return keys

    def take(self, packet: "Packet[VideoStream]") -> None:
        """Take one packet; an empty one at the end."""
        self.first = self.first or self._decoded(packet)
        if not packet.size:
            return
        name, pts = self._name, packet.pts
        hidden = packet.is_discard or (name in _HIDING and is_hidden(name, memoryview(packet)))
        key = packet.is_keyframe and starts_afresh(self._codec, self._extradata, memoryview(packet))
        if name == "mpeg4" and len(self.pts) < _PROBED and is_packed(self._extradata, memoryview(packet)):
            self.packed = self.decoding_order = True
        self.pts.append(pts)
        self.dts.append(packet.dts)
        self.lasts.append(packet.duration or 0)
        self.shown.append(not hidden)
        self.keys.append(key)
        self.closed.append(key and self.decoding_order and closes(name, self._extradata, memoryview(packet)))

    def _decoded(self, packet: "Packet[VideoStream]") -> av.VideoFrame | None:
        try:
            return next(iter(self._decoder.decode(packet if packet.size else None)), None)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return None  # damaged: the next frame may be intact, and decoding all frames counts the loss


def _start(reader: _Reader, packets: Packets) -> tuple[int, int]:
    """Return when the first frame is shown, and how many packets before it give none."""
    pts, shown = packets.pts, packets.shown
    assert reader.first is not None
    given = reader.first.pts
    found = (
        next((at for at, raw in enumerate(reader.pts) if raw == given and shown[at]), None)
        if given is not None
        else None
    )
    origin = int(pts[shown].min()) if found is None else int(pts[found])
    return origin, int(np.sum(pts[shown] < origin))


def _end(reader: _Reader, packets: Packets, rate: Fraction) -> int:
    """Return when the last frame ends: by its packet, or else by the rate."""
    at = int(np.argmax(np.where(packets.shown, packets.pts, packets.pts.min())))
    own = 0 if packets.by_rank else reader.lasts[at]
    return packets.last + (own if own > 0 else max(1, round(1 / (rate * packets.time_base))))
