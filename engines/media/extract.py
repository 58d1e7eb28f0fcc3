"""Writes the content of a message to files that other programs open, so that a person can inspect it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.archive import write_npz
from engines.media.packets import Flag, unpack
from engines.part import Array, Value, unpack_values
from engines.ragged import Ragged
from schemas.media import CodecParameters
from schemas.parts import PartMessage
from schemas.segments import Segment
from schemas.wire import Buffer

# The names of codecs that have one of their own in Matroska; all others use their FOURCC. Source: RFC 9559, codec
# mappings of the Matroska specification
_NAMES = {
    "h264": "V_MPEG4/ISO/AVC",
    "hevc": "V_MPEGH/ISO/HEVC",
    "vp8": "V_VP8",
    "vp9": "V_VP9",
    "libdav1d": "V_AV1",
    "mpeg4": "V_MPEG4/ISO/ASP",
    "mpeg2video": "V_MPEG2",
    "mjpeg": "V_MJPEG",
    "ffv1": "V_FFV1",
}
_VFW = "V_MS/VFW/FOURCC"
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
_CLUSTER_MS = 5000


def files_of(message: Segment | PartMessage, buffers: Sequence[memoryview]) -> dict[str, Buffer]:
    """Return file name -> content: a segment's video as `.mkv`, its items or other buffers as sent, a part as `.npz`.

    The media itself is copied bit for bit, including damage. Items that were sent as paths stay in their folders.
    """
    stem = f"{message.key.job.id}-{message.key.segment}"
    if isinstance(message, PartMessage):
        archive = io.BytesIO()
        write_npz(archive, _dense(unpack_values(message.arrays, list(buffers))))
        return {f"{stem}-{message.key.part}.npz": archive.getvalue()}
    if message.codec is not None and len(buffers) == 2:
        return {f"{stem}.mkv": _matroska(message, message.codec, buffers)}
    if message.media.timed:
        return {f"{stem}-{number}.bin": buffer for number, buffer in enumerate(buffers)}
    return {
        f"{number}-{Path(item.name).name}": buffer
        for number, (item, buffer) in enumerate(zip(message.items, buffers, strict=False))
    }


def _dense(values: Mapping[str, Value]) -> dict[str, Array]:
    """Arrays of a part; of a ragged one its values, and where its rows begin."""
    arrays: dict[str, Array] = {}
    for name, value in values.items():
        if isinstance(value, Ragged):
            arrays |= {name: value.values, f"{name}_offsets": value.offsets}
        else:
            arrays[name] = value
    return arrays


def _matroska(segment: Segment, codec: CodecParameters, buffers: Sequence[memoryview]) -> bytes:
    """A segment's packets as a file of Matroska: PyAV muxes only streams that it read from a file itself."""
    extradata, packets = unpack(codec, buffers)
    base = segment.media.clock.time_base
    begin = min((coded.pts for coded in packets), default=0)
    head = _element(0x1A45DFA3, _element(0x4282, b"matroska"))
    blocks: list[bytes] = []
    start = -2 * _CLUSTER_MS
    for coded in packets:
        at = round((coded.pts - begin) * base * 1000)
        if not start <= at < start + _CLUSTER_MS:
            start = at
            blocks.append(b"\x1f\x43\xb6\x75" + _UNKNOWN_SIZE + _element(0xE7, _number(at)))
        key = 0x80 if coded.flags & Flag.KEY else 0
        body = b"\x81" + (at - start).to_bytes(2, "big", signed=True) + bytes([key]) + bytes(coded.packet)
        blocks.append(_element(0xA3, body))
    info = _element(0x1549A966, _element(0x2AD7B1, _number(1_000_000)))
    tracks = _element(0x1654AE6B, _element(0xAE, _track(codec, extradata)))
    return head + b"\x18\x53\x80\x67" + _UNKNOWN_SIZE + info + tracks + b"".join(blocks)


def _track(codec: CodecParameters, extradata: bytes) -> bytes:
    name = _NAMES.get(codec.decoder, _VFW)
    if name == _VFW:  # a BITMAPINFOHEADER and the extradata behind it
        numbers = [40 + len(extradata), codec.width, codec.height, 1 | codec.bits << 16]
        tag = codec.tag.encode("latin-1", "replace").ljust(4, b"\0")[:4]
        extradata = b"".join(n.to_bytes(4, "little") for n in numbers) + tag + bytes(20) + extradata
    size = _element(0xB0, _number(codec.width)) + _element(0xBA, _number(codec.height))
    private = _element(0x63A2, extradata) if extradata else b""
    return b"".join(
        [
            *(_element(key, _number(1)) for key in (0xD7, 0x73C5, 0x83)),  # number, UID, type: video
            _element(0x86, name.encode()),
            private,
            _element(0xE0, size),
        ]
    )


def _element(key: int, body: bytes) -> bytes:
    return key.to_bytes((key.bit_length() + 7) // 8, "big") + (1 << 56 | len(body)).to_bytes(8, "big") + body


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
