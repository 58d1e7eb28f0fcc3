"""Which keyframes of H.264 a decoder can really start at.

Demuxers also mark points from where a picture recovers bit by bit (periodic intra refresh). A decoder that starts there
leaves out the frames before the recovery, so that a cut would lose them. Source: ITU-T H.264, 7.4.1 (NAL units, byte
stream in annex B), D.2.8 (recovery point); ISO 14496-15 for the length-prefixed form.
"""

from collections.abc import Iterator

from schemas.wire import Buffer

_SLICE, _IDR, _SEI = 1, 5, 6
_RECOVERY_POINT = 6


def starts_afresh(codec: str, extradata: bytes | None, packet: Buffer) -> bool:
    """Whether decoding may start at `packet`, a keyframe by its container; true for other codecs than H.264."""
    if codec != "h264":
        return True
    for unit in _units(bytes(packet), extradata or b""):
        kind = unit[0] & 0x1F
        if kind == _IDR:
            return True
        if kind == _SEI and _recovers_at_once(unit.replace(b"\0\0\3", b"\0\0")):
            return True
        if kind == _SLICE:
            return False
    return False


def _units(data: bytes, extradata: bytes) -> Iterator[bytes]:
    """The NAL units of a packet, in order; the header of `extradata` tells how they are set apart."""
    if not extradata.startswith(b"\1"):
        yield from (unit for unit in data.split(b"\0\0\1")[1:] if unit)
        return
    width = (extradata[4] & 3) + 1
    at = 0
    while at + width < len(data):
        size = int.from_bytes(data[at : at + width], "big")
        if size:
            yield data[at + width : at + width + size]
        at += width + size


def _recovers_at_once(sei: bytes) -> bool:
    """Whether an SEI unit has a recovery point of 0 frames: that is Exp-Golomb coded, a single bit 1."""
    at = 1
    while at + 2 < len(sei):
        kind, at = _sum_of_bytes(sei, at)
        size, at = _sum_of_bytes(sei, at)
        if kind == _RECOVERY_POINT:
            return at < len(sei) and bool(sei[at] & 0x80)
        at += size
    return False


def _sum_of_bytes(data: bytes, at: int) -> tuple[int, int]:
    """A number in the form of SEI headers, bytes of 255 and a last one, and where it ends."""
    total = 0
    while at < len(data) and data[at] == 255:
        total, at = total + 255, at + 1
    return (total + data[at], at + 1) if at < len(data) else (total, at)
