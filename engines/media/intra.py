"""Reads from a packet's bits whether its picture refers to no other: containers call packets keyframes that are none.

Some AVI, MP4 and ASF files mark all packets, and FFmpeg marks those of H.263 in AVI: a cut in front of any but a real
keyframe gives wrong pictures. Sources: ITU-T H.262 and ISO 11172-2, 6.2.3 (MPEG-1 and 2); ISO 14496-2, 6.2.5 (MPEG-4);
ITU-T H.263, 5.1; ITU-T H.265, 7.4.2.2; RFC 6386, 9.1 (VP8); the VP9 bitstream specification 0.6, 6.2; the AV1 bitstream
specification, 5.3 and 5.9.2; for the formats that Microsoft and Macromedia do not publish, what FFmpeg's decoders read.
"""

from collections.abc import Callable, Iterable, Sequence

_PICTURE, _VOP = b"\0\0\1\0", b"\0\0\1\xb6"
_HEVC_IRAP, _HEVC_SLICES = range(16, 22), range(32)
_AV1_SEQUENCE, _AV1_FRAMES = 1, (3, 6)
_UNREAD = (  # codecs with pictures that refer to others, whose packets are not read here
    *("h261", "svq1", "svq3", "snow", "cinepak", "msvideo1", "qtrle", "flashsv", "flashsv2", "rv10", "rv20", "rv30"),
    *("rv40", "vc1", "wmv3"),
)


def are_doubtful(codec: str, keys: Sequence[bool]) -> bool:
    """Return whether `keys` cannot be believed: all packets of a codec are called keyframes that has other pictures."""
    return codec in _UNREAD and len(keys) > 1 and all(keys)


def is_intra(codec: str, packet: bytes, units: Iterable[bytes] = ()) -> bool | None:
    """Return whether `packet` begins with an intra picture; None: it is not known for `codec`, as FFmpeg names it.

    `units`: the NAL units of HEVC.
    """
    if codec == "hevc":
        kinds = (unit[0] >> 1 & 0x3F for unit in units)
        return next((kind in _HEVC_IRAP for kind in kinds if kind in _HEVC_SLICES), None)
    read = _READERS.get(codec)
    try:
        return read(packet) if read is not None else None
    except IndexError:
        return None  # it is too short: the decoder is to say so


def _mpeg12(packet: bytes) -> bool | None:
    at = packet.find(_PICTURE)
    return None if at < 0 else packet[at + 5] >> 3 & 7 == 1


def _mpeg4(packet: bytes) -> bool | None:
    at = packet.find(_VOP)
    return None if at < 0 else packet[at + 4] >> 6 == 0


def _h263(packet: bytes) -> bool:
    bits = int.from_bytes(packet[:9].ljust(9, b"\0"), "big")

    def field(at: int, width: int) -> int:
        return bits >> (72 - at - width) & ((1 << width) - 1)

    if field(35, 3) != 7:  # source format; 7: PLUSPTYPE, 5.1.4
        return not field(38, 1)
    full = field(38, 3) == 1  # its optional part comes first
    return field(41 + 18 * full, 3) == 0


def _flv1(packet: bytes) -> bool:
    bits = int.from_bytes(packet[:10].ljust(10, b"\0"), "big")
    size = bits >> (80 - 33) & 7  # behind 17 bits of start code, 5 of version, 8 of time
    return bits >> (80 - 35 - {0: 16, 1: 32}.get(size, 0)) & 3 == 0


def _vp8(packet: bytes) -> bool:
    return not packet[0] & 1


def _vp9(packet: bytes) -> bool:
    at = 4 + ((packet[0] >> 4 & 3) == 3)  # frame marker and profile, with a reserved bit in profile 3
    shows_existing, inter = packet[0] >> (7 - at) & 1, packet[0] >> (6 - at) & 1
    return not shows_existing and not inter


def _av1(packet: bytes) -> bool | None:
    at = 0
    while at < len(packet):
        head = packet[at]
        kind, has_size = head >> 3 & 15, head & 2
        at += 2 if head & 4 else 1
        size, shift = 0, 0
        while has_size:
            size |= (packet[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not packet[at - 1] & 0x80:
                break
        if kind == _AV1_SEQUENCE and packet[at] & 8:
            return True  # reduced_still_picture_header
        if kind in _AV1_FRAMES:
            return packet[at] >> 5 == 0  # neither show_existing_frame nor another frame type than KEY_FRAME
        if not has_size:
            return None
        at += size
    return None


_READERS: dict[str, Callable[[bytes], bool | None]] = {
    "mpeg1video": _mpeg12,
    "mpeg2video": _mpeg12,
    "mpeg4": _mpeg4,
    "h263": _h263,
    "flv1": _flv1,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    "theora": lambda packet: packet[0] >> 6 == 0,
    "msmpeg4v2": lambda packet: packet[0] >> 6 == 0,
    "msmpeg4v3": lambda packet: packet[0] >> 6 == 0,
    "wmv1": lambda packet: packet[0] >> 6 == 0,
    "wmv2": lambda packet: packet[0] >> 7 == 0,
    "gif": lambda packet: packet.startswith(b"GIF"),  # FFmpeg also marks the last picture before another file's header
}
