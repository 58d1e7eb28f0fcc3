"""Raw samples without a header: the content type that comes with them says what they are."""

import struct
from email.message import Message

from engines.mapped import joined
from schemas.errors import UsageError
from schemas.wire import Buffer

_LINEAR = {"audio/l8": "u8", "audio/l16": "s16be", "audio/l24": "s24be"}  # RFC 2586 and RFC 3190
_RAW = ("audio/pcm", "audio/x-pcm", "audio/x-raw")
_WAVE = {"u8": (1, 8), "s16le": (1, 16), "s24le": (1, 24), "s32le": (1, 32), "f32le": (3, 32), "f64le": (3, 64)}
_SUN = {"s8": (2, 8), "s16be": (3, 16), "s24be": (4, 24), "s32be": (5, 32), "f32be": (6, 32), "f64be": (7, 64)}
_MOST = {"rate": 768_000, "channels": 64}
_EXAMPLE = "write it as in audio/pcm; rate=16000; channels=1; format=s16le"


def with_header(body: Buffer, content_type: str) -> Buffer:
    """Return raw samples as a file of sound, and any other media as they are.

    `audio/L16; rate=R; channels=C` has samples in network order, `audio/pcm; rate=R; channels=C; format=F` those of
    FFmpeg's format F, by default s16le. `channels` is 1 by default. Raises UsageError.
    """
    given = Message()
    given["Content-Type"] = content_type
    kind = given.get_content_type()
    if kind not in _LINEAR and kind not in _RAW:
        return body
    rate, channels = (_number(given, name, content_type) for name in ("rate", "channels"))
    form = _LINEAR.get(kind) or _text(given, "format", "s16le").lower()
    if form in _WAVE:
        return joined(_wave(form, rate, channels, len(body)), body)
    if form in _SUN:
        return joined(_sun(form, rate, channels, len(body)), body)
    what = f"content type {content_type}: there is no format {form}"
    raise UsageError(what, f"there are {', '.join((*_WAVE, *_SUN))}")


def _text(given: Message, name: str, default: str) -> str:
    found = given.get_param(name, default)
    return found if isinstance(found, str) else default


def _number(given: Message, name: str, content_type: str) -> int:
    text = _text(given, name, "" if name == "rate" else "1")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= _MOST[name]:
        raise UsageError(f"content type {content_type}: {name} is no number from 1 to {_MOST[name]}", _EXAMPLE)
    return number


def _wave(form: str, rate: int, channels: int, size: int) -> bytes:
    """Return the header of a wav file; a size of 32 bits is not read where it is the greatest."""
    code, bits = _WAVE[form]
    block, most = channels * bits // 8, (1 << 32) - 1
    head = struct.pack("<HHIIHH", code, channels, rate, min(rate * block, most), block, bits)
    sizes = min(size + 36, most), min(size, most)
    return (
        b"RIFF"
        + struct.pack("<I", sizes[0])
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", sizes[1])
    )


def _sun(form: str, rate: int, channels: int, size: int) -> bytes:
    """Return the header of an au file."""
    return b".snd" + struct.pack(">5I", 24, min(size, (1 << 32) - 1), _SUN[form][0], rate, channels)
