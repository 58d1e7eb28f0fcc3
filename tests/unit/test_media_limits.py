"""No media takes more memory or more windows than settings allow, whatever its header says."""

import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from engines.media import places
from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.limits import Limits
from engines.media.split import Splitter
from schemas.errors import ItemTooLarge
from schemas.jobs import JobRef, Key
from tests.clips import Clip, generated
from tests.memory_growth import outcome_of
from tests.plans import decode_plan
from tests.unit.media_passes import pipeline

SIDE = 8_000
KEY = Key(job=JobRef(id="job", pipeline="test", revision="0"), segment=0, final=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@cache
def png(side: int, extra: bytes = b"") -> bytes:
    """A black picture of `side` x `side` RGB."""
    packer, row = zlib.compressobj(1), bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packer.flush()


def blank(codec: str, side: int, pixel_format: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.time_base = side, side, pixel_format, Fraction(1, 25)
    return b"".join(map(bytes, [*context.encode(av.VideoFrame(side, side, pixel_format)), *context.encode(None)]))


def gif(side: int) -> bytes:
    """Fifty frames of one pixel on a canvas of `side` x `side`."""
    head = b"GIF89a" + side.to_bytes(2, "little") * 2 + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + (b"\x2c" + bytes(4) + b"\1\0\1\0\0\x02\x02\x44\x01\0") * 50 + b";"


def two_sizes(first: int, second: int) -> bytes:
    """A jpeg whose first header tells of another size than the one that holds its picture."""
    data = blank("mjpeg", second, "yuvj420p")
    frame = b"\xff\xc0\0\x0b\x08" + first.to_bytes(2, "big") * 2 + b"\1\1\x11\0"
    return data[:2] + frame + data[2:]


def canvas(side: int, inner: int) -> bytes:
    """A webp whose canvas is smaller than its picture."""
    data = blank("libwebp", inner, "yuv420p")
    edge = (side - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + edge * 2 + data[data.index(b"VP8 ") :]
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def mov(path: Path, pictures: list[bytes], sides: int) -> Path:
    """A film of pngs, whose header says that it has `sides` x `sides` pixels."""
    with av.open(str(path), "w", format="mov") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = sides, sides, "rgb24"
        for number, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = number
            out.mux(packet)
    return path


BEYOND = f"has {SIDE}x{SIDE} pixels, more than 50 million"
BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "large.png": (lambda path: path.write_bytes(png(SIDE)), f"the image {BEYOND}"),
    "text.png": (lambda path: path.write_bytes(png(16, chunk(b"zTXt", b"a\0\0" + zeros(300)))), ""),
    "profile.png": (lambda path: path.write_bytes(png(16, chunk(b"iCCP", b"a\0\0" + zeros(300)))), ""),
    "sizes.jpg": (lambda path: path.write_bytes(two_sizes(16, 4000)), "the jpeg image cannot be decoded"),
    "canvas.webp": (lambda path: path.write_bytes(canvas(16, 2000)), "the webp image is damaged"),
    "canvas.gif": (lambda path: path.write_bytes(gif(16_000)), "no frame of its gif video can be decoded"),
    "honest.mov": (lambda path: mov(path, [png(SIDE)], SIDE), f"honest.mov {BEYOND}"),
    "text.mov": (lambda path: mov(path, [png(16, chunk(b"zTXt", b"a\0\0" + zeros(300)))] * 2, 16), ""),
    "lie.mov": (lambda path: mov(path, [png(SIDE)], 64), "no frame of its png video can be decoded"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    make, expected = BOMBS[name]
    make(tmp_path / name)
    words, grown = outcome_of(tmp_path / name)
    assert expected in words
    assert expected or not words
    assert grown < 64


def test_frames_that_grow_in_mid_stream_are_refused(tmp_path: Path) -> None:
    path = mov(tmp_path / "grows.mov", [png(16), png(600), png(16)], 16)
    for most, lost in ((10_000, 1), (400_000, 0)):
        limits = Limits(pixels=most)
        with Splitter(path, pipeline().grid, 1.0, limits=limits) as splitter:
            (segment_data,) = splitter.segments()
            segment = segment_data.segment(KEY)
        parts = list(decode_video(segment, segment_data.buffers, decode_plan(pipeline()), pack_frame, limits=limits))
        assert sum(part.meta.lost for part in parts) == lost


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(pixels=9000), "has 128x72 pixels, more than 0.009 million: scale it down or raise the setting max_pix"),
        (Limits(windows=49), "asks for 50 windows, more than 49: cut it into files, or raise the setting max_windows"),
        (
            Limits(duration_s=1.9),
            "lasts 1.96 seconds, more than 1.9: cut it into files, or raise .* max_duration_s",
        ),
    ],
)
def test_a_film_beyond_the_settings_is_refused_before_it_starts(limits: Limits, words: str) -> None:
    with pytest.raises(ItemTooLarge, match=words), Splitter(generated(Clip()), pipeline().grid, 1.0, limits=limits):
        pass


def test_a_segment_asks_for_no_more_than_the_settings_allow() -> None:
    clip = generated(Clip(frames=10))
    spec = pipeline(fps=1000.0)
    with Splitter(clip, spec.grid, 10.0) as splitter:
        (segment_data,), media = splitter.segments(), splitter.media
    far = np.frombuffer(segment_data.buffers[0], "<i8").copy()
    far[-3] = 10**15
    large = {"width": 60_000, "height": 60_000}
    for changes, end, table, words in (
        ({}, 10**17, segment_data.buffers[0], "asks for .* windows"),
        ({}, None, far.tobytes(), "asks for .* windows"),
        ({"media": media.model_copy(update=large)}, None, segment_data.buffers[0], "has 60000x60000 pixels"),
        (
            {"codec": segment_data.codec.model_copy(update=large)},
            None,
            segment_data.buffers[0],
            "has 60000x60000 pixels",
        ),
    ):
        segment = segment_data.segment(KEY).model_copy(update={"end": end, **changes})
        with pytest.raises(ItemTooLarge, match=words):
            list(
                decode_video(
                    segment,
                    (table, segment_data.buffers[1]),
                    decode_plan(spec),
                    pack_frame,
                    limits=Limits(windows=1000),
                )
            )


@pytest.mark.parametrize("sound", ["", "aac"])
def test_what_lies_between_two_cuts_is_bounded_in_memory(sound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets count with what they take beside their bytes, and those of the sound with those of the picture."""
    clip = generated(Clip(frames=600, gop=600, container="mkv", size=(64, 80), sound=sound))
    packets = 600 + (563 if sound else 0)
    for room, fits in ((packets << 11, True), (packets << 10, False)):
        monkeypatch.setattr(places, "MAX_SEGMENT_BYTES", room)
        with Splitter(clip, pipeline().grid, 1) as splitter:
            if fits:
                assert len(list(splitter.segments())) == 1
                continue
            with pytest.raises(ItemTooLarge, match=r"\d+ packets lie between two places where it can be cut, and take"):
                list(splitter.segments())
