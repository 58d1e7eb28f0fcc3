"""No image makes a decoder take more memory than its limit allows, whatever its header says."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from tests.memory_growth import outcome_of
from tests.unit.test_media_limits import chunk, zeros

HUGE = 9_000  # a side of a picture beyond the limit of 50 million pixels, which takes 81 MB or more when decoded


@cache
def saved(name: str, side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 9).save(file, name, **({"speed": 10} if name == "avif" else {}))
    return file.getvalue()


def tiff(entries: dict[int, int], data: bytes) -> bytes:
    """A gray TIFF of those tags; `data` is its only strip or tile, packed by deflate."""
    at = 8 + 2 + 12 * (len(entries) + 6) + 4
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, **entries}
    body = struct.pack("<H", len(tags))
    for tag, value in sorted(tags.items()):
        body += struct.pack("<HHII", tag, 4, 1, at if value < 0 else value)
    return (b"II*\0" + struct.pack("<I", 8) + body + bytes(4)).ljust(at, b"\0") + data


def gif_beyond(canvas: int, inner: int) -> bytes:
    """A gif whose only picture is larger than its canvas."""
    head = b"GIF89a" + canvas.to_bytes(2, "little") * 2 + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + b"\x2c" + bytes(4) + inner.to_bytes(2, "little") * 2 + b"\0\x02\x02\x44\x01\0;"


def two_boxes(shown: int, held: int) -> bytes:
    """A jpeg 2000 file that says one size, and whose codestream has another."""
    small, large = saved("jpeg2000", shown), saved("jpeg2000", held)
    return small[: small.index(b"\xff\x4f\xff\x51")] + large[large.index(b"\xff\x4f\xff\x51") :]


def lying_avif(shown: int, held: int) -> bytes:
    """An avif whose property `ispe` says another size than its picture has."""
    data = bytearray(saved("avif", held))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", shown, shown)
    return bytes(data)


def animated_webp(canvas: int, inner: int) -> bytes:
    """An animation whose pictures are larger than its canvas."""
    file = io.BytesIO()
    pictures = [Image.new("RGB", (inner, inner), colour) for colour in ("red", "lime")]
    pictures[0].save(file, "webp", save_all=True, append_images=pictures[1:], lossless=True, method=0)
    data = bytearray(file.getvalue())
    data[24:30] = (canvas - 1).to_bytes(3, "little") * 2
    return bytes(data)


def animated_png(extra: bytes) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    pictures[0].save(file, "png", save_all=True, append_images=pictures[1:])
    return file.getvalue()[:33] + extra + file.getvalue()[33:]


def lying_ppm() -> bytes:
    return b"P5 60000 60000 255\n" + bytes(1000)


def lying_tga() -> bytes:
    return bytes([0, 0, 3]) + bytes(9) + struct.pack("<HH", 60_000, 60_000) + b"\x08\0" + bytes(99)


def tile_of_tiff() -> bytes:
    packed = zlib.compress(bytes(HUGE * HUGE), 1)
    return tiff({322: HUGE, 323: HUGE, 324: -1, 325: len(packed)}, packed)


def wide_tiff() -> bytes:
    packed = zlib.compress(bytes(1 << 20), 1)[:99]
    return tiff({256: 60_000, 257: 60_000, 273: -1, 278: 1, 279: len(packed)}, packed)


BEYOND = "more than 50 million"
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "honest.jpeg2000": (lambda: saved("jpeg2000", HUGE), BEYOND),
    "honest.avif": (lambda: saved("avif", HUGE), BEYOND),
    "header.ppm": (lying_ppm, BEYOND),
    "header.tga": (lying_tga, BEYOND),
    "header.gif": (lambda: gif_beyond(60_000, 16), BEYOND),
    "inner.gif": (lambda: gif_beyond(16, 60_000), BEYOND),
    "codestream.jp2": (lambda: two_boxes(16, HUGE), BEYOND),
    "property.avif": (lambda: lying_avif(16, HUGE), f"the avif image is damaged, or has {BEYOND} pixels"),
    "canvas.webp": (lambda: animated_webp(16, 4000), "the webp image cannot be decoded"),
    "profile.apng": (lambda: animated_png(chunk(b"iCCP", b"a\0\0" + zeros(300))), ""),
    "text.apng": (lambda: animated_png(chunk(b"zTXt", b"a\0\0" + zeros(300))), ""),
    "tile.tiff": (tile_of_tiff, f"a tile of the image has {HUGE}x{HUGE} pixels, {BEYOND}"),
    "wide.tiff": (wide_tiff, BEYOND),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    make, expected = BOMBS[name]
    data = make()
    assert len(data) < 2 << 20
    (tmp_path / name).write_bytes(data)
    words, grown = outcome_of(tmp_path / name)
    assert expected in words
    assert expected or not words
    assert grown < 64
