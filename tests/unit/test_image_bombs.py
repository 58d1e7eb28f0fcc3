"""No image makes a decoder take more memory than its limit allows, whatever its header says."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.test_media_limits import chunk, outcome_of, zeros

HUGE = 12_000  # a side of a picture beyond the limit of 50 million pixels


def saved(name: str, side: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 9).save(file, name, **options)
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
    data = bytearray(saved("avif", held, speed=10))
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


def bombs() -> Iterator[tuple[str, bytes, str]]:
    too_large = "more than 50 million"
    for name in ("jpeg2000", "avif"):
        yield f"honest.{name}", saved(name, HUGE), too_large
    yield "header.ppm", b"P5 60000 60000 255\n" + bytes(1000), too_large
    tga = bytes([0, 0, 3]) + bytes(9) + struct.pack("<HH", 60_000, 60_000) + b"\x08\0" + bytes(99)
    yield "header.tga", tga, too_large
    yield "header.gif", gif_beyond(60_000, 16), too_large
    yield "inner.gif", gif_beyond(16, 60_000), "more than 50 million"
    yield "codestream.jp2", two_boxes(16, HUGE), too_large
    yield "property.avif", lying_avif(16, HUGE), "the avif image is damaged, or has more than 50 million pixels"
    yield "canvas.webp", animated_webp(16, 4000), "the webp image cannot be decoded"
    yield "profile.apng", animated_png(chunk(b"iCCP", b"a\0\0" + zeros(300))), ""
    yield "text.apng", animated_png(chunk(b"zTXt", b"a\0\0" + zeros(300))), ""
    packed = zlib.compress(bytes(HUGE * HUGE), 1)
    tile = {322: HUGE, 323: HUGE, 324: -1, 325: len(packed)}
    yield "tile.tiff", tiff(tile, packed), "a tile of the image has 12000x12000 pixels, more than 50 million"
    yield "wide.tiff", tiff({256: 60_000, 257: 60_000, 273: -1, 278: 1, 279: 99}, packed[:99]), too_large


@pytest.mark.parametrize(("name", "data", "expected"), [pytest.param(*bomb, id=bomb[0]) for bomb in bombs()])
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    assert len(data) < 2 << 20
    (tmp_path / name).write_bytes(data)
    words, grown = outcome_of(tmp_path / name)
    assert expected in words
    assert expected or not words
    assert grown < 64
