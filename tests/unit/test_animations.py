"""Animated images are films: all their pictures, each at its time, and exact."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engines.media.limits import Limits
from engines.media.split import Splitter
from engines.outputs.thumbnail import thumbnail
from engines.part import Array
from schemas.errors import ItemTooLarge, MediaError
from tests.clips import still
from tests.kinds import kind_of
from tests.plans import converter
from tests.unit.media_passes import decoded, pipeline, segments_of

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (20, 40, 60)]
LASTS_MS = [200, 40, 120, 500, 80]
EXACT = ("png", "webp")


def animation(name: str, lasts_ms: list[int], size: tuple[int, int] = (64, 40), mode: str = "RGB") -> bytes:
    pictures = [Image.new("RGB", size, colour).convert(mode) for colour in COLOURS[: len(lasts_ms)]]
    if mode == "RGBA":
        for picture in pictures:
            picture.putpixel((0, 0), (1, 2, 3, 0))
    file = io.BytesIO()
    options = {"lossless": True} if name == "webp" else {}
    pictures[0].save(file, name, save_all=True, append_images=pictures[1:], duration=lasts_ms, **options)
    return file.getvalue()


def shown(source: bytes | Path) -> tuple[list[float], list[tuple[int, ...]]]:
    """When each frame is shown, in seconds, and the colour in its middle."""
    spec = pipeline(size=[40, 64], layout="rgb")
    media, segments = segments_of(source, spec, 0.1)
    times, colours = [], []
    for part in decoded(media, segments, spec, converter(spec).convert):
        times += [media.clock.seconds(pts) for pts in part.meta.pts]
        pixels = part.arrays["pixels"]
        colours += [tuple(pixels[row, 20, 32].tolist()) for row in part.arrays["index"][:, 0]]
    return times, colours


@pytest.mark.parametrize("name", ["gif", "png", "webp", "avif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_picture_comes_at_its_time(name: str, mode: str) -> None:
    data = animation(name, LASTS_MS, mode=mode)
    assert kind_of(data) == "video"
    times, colours = shown(data)
    assert times == pytest.approx(np.cumsum([0, *LASTS_MS[:-1]]) / 1000, abs=1e-3)
    assert np.abs(np.array(colours) - COLOURS).max() <= (0 if name in EXACT else 8)
    with Splitter(data, pipeline().grid, 1) as splitter:
        assert splitter.media.duration_s == pytest.approx(sum(LASTS_MS) / 1000, abs=1e-3)


@pytest.mark.parametrize("name", ["gif", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animation_is_transparent_where_a_pixel_is(name: str, mode: str) -> None:
    spec = pipeline(size=[40, 64], layout="rgb")
    media, segments = segments_of(animation(name, LASTS_MS, mode=mode), spec, 10)
    (part,) = decoded(media, segments, spec, converter(spec).convert)
    assert ("transparency is left out" in part.meta.notes) == (mode == "RGBA")


@pytest.mark.parametrize(("name", "lasts_ms"), [("webp", 100), ("png", 1000 / 15)])
def test_pictures_without_a_duration_last_as_long_as_players_show_them(name: str, lasts_ms: float) -> None:
    times, _ = shown(animation(name, [0, 0, 0]))
    assert times == pytest.approx([0, lasts_ms / 1000, 2 * lasts_ms / 1000], abs=1e-4)


@pytest.mark.parametrize("name", ["gif", "png", "webp", "avif"])
def test_one_picture_is_an_image(name: str) -> None:
    assert kind_of(animation(name, [100])) == "image"


def test_jpegs_one_after_the_other_are_a_video(tmp_path: Path) -> None:
    pictures = [still("mjpeg", (40, 64), seed=seed) for seed in range(5)]
    path, photo = tmp_path / "film.mjpeg", tmp_path / "photo.JPG"
    for file in (path, photo):
        file.write_bytes(b"".join(pictures))
    padded = bytes(20).join(pictures)
    assert [kind_of(each) for each in (path, padded, photo, pictures[0])] == ["video", "video", "image", "image"]
    assert [kind_of(path.read_bytes(), name) for name in ("", "a.jpeg")] == ["video", "image"]
    spec = pipeline()
    media, pieces = segments_of(path, spec, 0.1)
    parts = decoded(media, pieces, spec)
    assert [media.clock.seconds(pts) for part in parts for pts in part.meta.pts] == [n / 25 for n in range(5)]
    found = [row for part in parts for row in part.arrays["pixels"]]
    wanted = [decoded_raw(picture) for picture in pictures]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def decoded_raw(picture: bytes) -> Array:
    """The bytes of the planes of a jpeg, in one row."""
    (frame,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(picture))
    return np.concatenate(
        [
            np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].reshape(-1)
            for plane in frame.planes
        ]
    )


def test_a_photo_with_further_pictures_is_an_image() -> None:
    first, second = still("mjpeg"), still("mjpeg", seed=1)
    mpf = b"\xff\xe2" + (2 + 12).to_bytes(2, "big") + b"MPF\0" + bytes(8)
    assert kind_of(first[:2] + mpf + first[2:] + second) == "image"


def test_the_picture_for_readers_without_animation_is_not_shown() -> None:
    pictures = [Image.new("RGB", (64, 40), colour) for colour in COLOURS[:3]]
    file = io.BytesIO()
    pictures[0].save(file, "png", save_all=True, append_images=pictures[1:], duration=100, default_image=True)
    assert shown(file.getvalue())[1] == COLOURS[1:3]


def test_a_file_is_as_good_as_bytes_and_has_a_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "film.webp"
    path.write_bytes(animation("webp", LASTS_MS))
    assert kind_of(path) == "video"
    assert shown(path)[1] == COLOURS
    assert tuple(thumbnail(path, 0.3, (90, 160))[20, 20]) == COLOURS[2]


def test_a_damaged_animation_says_so() -> None:
    data = animation("webp", LASTS_MS)
    with pytest.raises(MediaError, match="the webp image cannot be decoded"), Splitter(data[:-40], pipeline().grid, 1):
        pass


def test_an_animation_beyond_the_settings_is_refused() -> None:
    data = animation("png", LASTS_MS)
    for limits in (Limits(pixels=1000), Limits(windows=3), Limits(duration_s=0.5)):
        with pytest.raises(ItemTooLarge, match="raise the setting"), Splitter(data, pipeline().grid, 1, limits=limits):
            pass
