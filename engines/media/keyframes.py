"""Reads from a packet's first bits whether decoding can start there, and whether the packet gives a frame.

For H.264, demuxers also mark points from which a picture recovers bit by bit (periodic intra refresh). A decoder that
starts there leaves out the frames before the recovery, so that a cut would lose them. Source: ITU-T H.264, 7.4.1 (NAL
units, byte stream in annex B), D.2.8 (recovery point); ISO 14496-15 for the length-prefixed form; ITU-T H.265, 7.4.2.2;
RFC 6386, 9.1 (VP8); the VP9 bitstream specification 0.6, 6.2 and annex B; ISO 14496-2, 6.2.5 (MPEG-4).
"""

import re
from collections.abc import Iterator

from engines.media.intra import is_intra
from schemas.wire import Buffer

_SLICE, _IDR, _SEI = 1, 5, 6
_RECOVERY_POINT = 6
_HEVC_SLICES, _HEVC_IDR = range(32), (19, 20)
_VOP = b"\0\0\1\xb6"
_PACKED = re.compile(rb"DivX\d+(Build|b)\d+p")  # MPEG-4 with a B-frame in the packet of the frame before it


def is_packed(extradata: bytes | None, packet: Buffer) -> bool:
    """Return whether a stream of MPEG-4 sometimes has two frames in a packet, by its header or its first packet."""
    return bool(_PACKED.search(extradata or b"") or _PACKED.search(bytes(packet)))


def is_hidden(codec: str, packet: Buffer) -> bool:
    """Return whether the decoder gives no frame for `packet`: some pictures of VP8 and VP9 are only references."""
    first = packet[0]
    if codec == "vp8":
        return not first & 0x10
    if codec != "vp9" or first >> 6 != 2 or packet[-1] & 0xE0 == 0xC0:  # a superframe ends with a frame that is shown
        return False
    at = 4 + ((first >> 4 & 3) == 3)  # version bits, and a reserved one in profile 3
    shows_existing, is_shown = (
        first >> (7 - at) & 1,
        (first << 8 | packet[1]) >> (13 - at) & 1 if len(packet) > 1 else 1,
    )
    return not shows_existing and not is_shown


def closes(codec: str, extradata: bytes | None, packet: Buffer) -> bool:
    """Return whether no packet after `packet`, a keyframe, gives a frame that is shown before it."""
    if codec == "h264":
        return any(unit[0] & 0x1F == _IDR for unit in _units(bytes(packet), extradata or b""))
    if codec == "hevc":
        kinds = (unit[0] >> 1 & 0x3F for unit in _units(bytes(packet), extradata or b"", 21))
        return next((kind in _HEVC_IDR for kind in kinds if kind in _HEVC_SLICES), False)
    return codec == "mpeg4" and bytes(packet).count(_VOP) == 1  # of packed ones: B-frames are in the keyframe's packet


def starts_afresh(codec: str, extradata: bytes | None, packet: Buffer) -> bool:
    """Return whether decoding may start at `packet`, a keyframe by its container; `codec` as FFmpeg names it.

    Also true for codecs whose packets are not read.
    """
    if codec != "h264":
        units = _units(bytes(packet), extradata or b"", 21) if codec == "hevc" else ()
        return is_intra(codec, bytes(packet), units) is not False
    for unit in _units(bytes(packet), extradata or b""):
        kind = unit[0] & 0x1F
        if kind == _IDR:
            return True
        if kind == _SEI and _recovers_at_once(unit.replace(b"\0\0\3", b"\0\0")):
            return True
        if kind == _SLICE:
            return False
    return False


def _units(data: bytes, extradata: bytes, width_at: int = 4) -> Iterator[bytes]:
    """Yield the NAL units of a packet in order; the header in `extradata` defines how they are separated."""
    if not extradata.startswith(b"\1") or len(extradata) <= width_at:
        yield from (unit for unit in data.split(b"\0\0\1")[1:] if unit)
        return
    width = (extradata[width_at] & 3) + 1
    at = 0
    while at + width < len(data):
        size = int.from_bytes(data[at : at + width], "big")
        if size:
            yield data[at + width : at + width + size]
        at += width + size


def _recovers_at_once(sei: bytes) -> bool:
    """Return whether an SEI unit has a recovery point of 0 frames: in Exp-Golomb code, that is a single bit 1."""
    at = 1
    while at + 2 < len(sei):
        kind, at = _sum_of_bytes(sei, at)
        size, at = _sum_of_bytes(sei, at)
        if kind == _RECOVERY_POINT:
            return at < len(sei) and bool(sei[at] & 0x80)
        at += size
    return False


def _sum_of_bytes(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in the form of SEI headers (bytes of 255 and a last byte) and the offset after it."""
    total = 0
    while at < len(data) and data[at] == 255:
        total, at = total + 255, at + 1
    return (total + data[at], at + 1) if at < len(data) else (total, at)
