"""Carries coded packets from `split` to `decode` as a table and their bytes, without a container.

A container keeps only what its format supports: some round times, and others drop the pixel format of raw video, the
field order or the extradata. Here a decoder gets exactly what FFmpeg's demuxer gave: codec parameters, extradata, side
data and packets. The table has one row a packet, `[P, 4] int64`: flags, pts, duration, bytes. Extradata and side data
are rows of their own in front of the packet that they belong to.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.codec.codec import Capabilities
from av.packet import Packet, PacketSideData
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engines.media.limits import Limits, decoder_options
from engines.media.png import without_packed_chunks
from schemas.errors import MediaError
from schemas.media import MOST_REORDERED, CodecParameters
from schemas.wire import Buffer, Pieces

_ROW = np.dtype("<i8")
_COLUMNS = 4
_MOST_TICKS = 1 << 62  # sums of two fit in 64 bits
_PNG_CODEC = "png"
# the first takes the bytes of a packet for pointers, the second unpacks texts into memory without a limit
_UNSAFE = frozenset(("wrapped_avframe", "apng"))
_ELSEWHERE = Capabilities.hardware | Capabilities.hybrid  # decoders that open devices
_WHENCE = "a split of rigflow sends no such message"


class Flag:
    """Bits of a row's kind. They are plain numbers, because they are read for each packet.

    `HIDDEN`: the packet gives no frame that is shown; `ENTRY`: decoding may start at it.
    """

    KEY = 1
    CORRUPT = 2
    HIDDEN = 4
    ENTRY = 8
    EXTRADATA = 16
    PALETTE = 32
    NEW_EXTRADATA = 64


# side data that a decoder needs and keeps until the next: FFmpeg's name, and its number
_SIDE = Flag.PALETTE | Flag.NEW_EXTRADATA
_SIDE_DATA = {Flag.PALETTE: ("palette", 0), Flag.NEW_EXTRADATA: ("new_extradata", 1)}


class Coded(NamedTuple):
    """A packet with its final pts; `side` has its side data."""

    packet: "Packet[Any]"
    flags: int
    pts: int
    side: tuple[tuple[int, bytes], ...] = ()

    @property
    def shown(self) -> bool:
        """Return whether it gives a frame of its own."""
        return not self.flags & Flag.HIDDEN


_NO_BODY: "Packet[Any]" = Packet()


def parameters_of(stream: VideoStream, reorder: int) -> CodecParameters:
    """Return the codec parameters of a stream that was not decoded yet; at least `reorder` frames are held back."""
    context = stream.codec_context
    aspect = context.sample_aspect_ratio or stream.sample_aspect_ratio or Fraction(0)
    try:
        tag = context.codec_tag
    except UnicodeDecodeError:  # a few tags of raw Bayer video are not ASCII
        tag = ""
    return CodecParameters(
        decoder=context.name,
        tag=tag,
        pixel_format=context.pix_fmt or "",
        width=context.width,
        height=context.height,
        profile=context.profile or "",
        level=context.level,
        bits=context.bits_per_coded_sample,
        field_order=context.field_order,
        reorder=min(max(context.reorder_depth, reorder), MOST_REORDERED),
        sample_aspect=(aspect.numerator, aspect.denominator),
        color_range=context.color_range,
        color_space=context.colorspace,
        color_primaries=context.color_primaries,
        color_transfer=context.color_trc,
    )


def side_data(packet: "Packet[Any]") -> tuple[tuple[int, bytes], ...]:
    """Return the side data of a packet that its decoder keeps."""
    return tuple(
        (flag, bytes(packet.get_sidedata(name)))  # type: ignore[arg-type]
        for flag, (name, _) in _SIDE_DATA.items()
        if packet.has_sidedata(name)  # type: ignore[arg-type]
    )


def pack(extradata: bytes | None, packets: Sequence[Coded]) -> tuple[bytes, Pieces]:
    """Return the two buffers of a segment: the table, and all bytes, which are views of the packets."""
    rows: list[tuple[int, int, int, int]] = []
    data: list[Buffer] = [extradata] if extradata else []
    for coded in packets:
        for flag, body in coded.side:
            rows.append((flag, coded.pts, 0, len(body)))
            data.append(body)
        packet = coded.packet
        rows.append((coded.flags, coded.pts, packet.duration or 0, packet.size))
        data.append(memoryview(packet))
    return table_of(extradata, rows), Pieces(data)


def table_of(extradata: bytes | None, rows: Any) -> bytes:
    """Return the table of rows `[P, 4]`, with one for the extradata before them."""
    first = [(Flag.EXTRADATA, 0, 0, len(extradata))] if extradata else []
    return b"".join(np.array(part, _ROW).tobytes() for part in (first, rows))


def rows_of(table: Buffer, data: Buffer) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield `(flags, pts, duration, bytes)` of each row; bytes are views. Raises MediaError if the two disagree."""
    table, data = memoryview(table).cast("B"), memoryview(data).cast("B")
    if table.nbytes % (_COLUMNS * _ROW.itemsize):
        raise MediaError("a table of packets is cut short", _WHENCE)
    rows = np.frombuffer(table, _ROW).reshape(-1, _COLUMNS)
    ends = np.cumsum(rows[:, 3])
    sized = len(rows) and np.all(rows[:, 3] >= 0) and np.all(ends <= data.nbytes) and ends[-1] == data.nbytes
    timed = np.all((rows[:, 1:3] >= -_MOST_TICKS) & (rows[:, 1:3] <= _MOST_TICKS))
    if not sized or np.any(rows[:, 3] > data.nbytes) or not timed:
        raise MediaError("a table of packets does not fit their bytes", _WHENCE)
    for (flags, pts, duration, size), end in zip(rows.tolist(), ends.tolist(), strict=True):
        yield flags, pts, duration, data[end - size : end]


def unpack(codec: CodecParameters, buffers: Sequence[Buffer], bodies: bool = True) -> tuple[bytes, list[Coded]]:
    """Return `(extradata, packets)` of a segment's buffers; packets are views. Raises MediaError.

    Without `bodies`, packets have none, for a decoder that reads the buffers itself.
    """
    extradata = b""
    packets: list[Coded] = []
    side: list[tuple[int, bytes]] = []
    for kind, pts, duration, body in rows_of(*buffers):
        flags = kind & 127
        if flags & Flag.EXTRADATA:
            extradata = bytes(body)
        elif flags & _SIDE:
            side.append((flags & _SIDE, bytes(body)))
        else:
            packet = _packet(codec, flags, pts, duration, body, side) if bodies else _NO_BODY
            packets.append(Coded(packet, flags, pts, tuple(side)))
            side = []
    return extradata, packets


def _packet(
    codec: CodecParameters, flags: int, pts: int, duration: int, body: memoryview, side: Iterable[tuple[int, bytes]]
) -> "Packet[Any]":
    # FFmpeg's decoders read a little past the end of a packet: it needs memory of its own, with padding behind it
    packet: Packet[Any] = Packet(len(body))
    packet.update(png_bytes(body) if codec.decoder == _PNG_CODEC else body)  # type: ignore[arg-type]
    packet.pts, packet.duration = pts, duration
    packet.is_keyframe, packet.is_corrupt = bool(flags & Flag.KEY), bool(flags & Flag.CORRUPT)
    for flag, data in side:
        if flag not in _SIDE_DATA:
            raise MediaError(f"a packet has side data of kind {flag}", _WHENCE)
        entry = PacketSideData(_SIDE_DATA[flag][1], len(data))  # type: ignore[call-arg]
        entry.update(data)
        packet.set_sidedata(entry)
    return packet


def png_bytes(body: Buffer) -> bytes:
    """Remove the chunks of a png that FFmpeg would unpack without a limit; the length stays: decoders stop at IEND."""
    return without_packed_chunks(body).ljust(len(body), b"\0")


def open_decoder(codec: CodecParameters, extradata: bytes, limits: Limits, label: str) -> VideoCodecContext:
    """Open a decoder of the host for packets with these parameters.

    It has one thread: parallelism is by segment, and frame threads give other frames on damaged streams, also on some
    where neither way reports an error, so that a decode with them cannot be checked and repeated. Raises MediaError if
    there is no decoder, ItemTooLarge beyond `limits`.
    """
    limits.check_pixels(label, codec.width, codec.height)
    try:
        found = av.Codec(codec.decoder, "r")
        usable = found.type == "video" and not found.capabilities & _ELSEWHERE and found.name not in _UNSAFE
        context = av.CodecContext.create(found) if usable else None
        if not isinstance(context, VideoCodecContext):
            raise ValueError
        _describe(context, codec)
    except (ValueError, av.error.FFmpegError) as error:
        what = f"{label}: no decoder `{codec.decoder}` for {codec.pixel_format or 'its pictures'} here"
        raise MediaError(what, "install the PyAV that the publisher has, see requirements in pyproject.toml") from error
    context.extradata = extradata or None
    context.thread_type, context.thread_count = "NONE", 1
    context.options = decoder_options(limits.pixels)
    return context


def _describe(context: VideoCodecContext, codec: CodecParameters) -> None:
    if len(codec.tag) == 4:
        context.codec_tag = codec.tag
    if codec.pixel_format:
        context.pix_fmt = codec.pixel_format
    if codec.profile:
        context.profile = codec.profile
    context.width, context.height, context.level = codec.width, codec.height, codec.level
    context.bits_per_coded_sample, context.field_order = codec.bits, codec.field_order
    context.reorder_depth = codec.reorder
    context.sample_aspect_ratio = Fraction(*codec.sample_aspect)
    context.color_range, context.colorspace = codec.color_range, codec.color_space
    context.color_primaries, context.color_trc = codec.color_primaries, codec.color_transfer


def carried_side(packets: Iterable[Coded]) -> Iterator[tuple[int, bytes]]:
    """Yield the last side data of each kind of discarded packets, because a decoder would still keep it."""
    last = {flag: body for coded in packets for flag, body in coded.side}
    return iter(last.items())
