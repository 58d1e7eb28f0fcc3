"""Padding before scaling, and transparent pixels on a background: the bytes of Pillow."""

from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines import resizing
from engines.canvas import laid_on, padded
from engines.media.orientation import upright
from engines.media.stills import as_frame
from engines.transforms import Picture
from schemas.picture import PictureSpec

random = np.random.default_rng(4)


@st.composite
def images(draw: st.DrawFn) -> Image.Image:
    """RGB images of noise of odd sizes."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8))


def frame(*shape: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(random.integers(0, 256, shape, np.uint8), "rgb24" if len(shape) == 3 else "gray")


@pytest.mark.parametrize("resize", ["bicubic", "lanczos", "bilinear", "nearest"])
@pytest.mark.parametrize("size", [(200, 300), (301, 200), (64, 64), (20, 31), (3000, 7)], ids=str)
def test_a_frame_is_padded_and_then_scaled(size: tuple[int, int], resize: str) -> None:
    source = frame(*size, 3)
    spec = PictureSpec(size=(64, 64), fit="pad", pad_value=200, resize=resize, antialias=True)
    longest = max(size)
    square = Image.new("RGB", (longest, longest), (200, 200, 200))
    square.paste(Image.fromarray(source.to_ndarray()), ((longest - size[1]) // 2, (longest - size[0]) // 2))
    expected = square.resize((64, 64), getattr(Image.Resampling, resize.upper()))
    np.testing.assert_array_equal(Picture(spec).convert(source)[0], np.asarray(expected))


@given(
    image=images(),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    fit=st.sampled_from(["crop", "letterbox", "stretch", "pad"]),
    resize=st.sampled_from(["area", "nearest", "bilinear", "bicubic", "lanczos"]),
    antialias=st.booleans(),
    pad_value=st.sampled_from([0, 200, "edge"]),
    place=st.sampled_from(["center", "corner"]),
    layout=st.sampled_from(["rgb", "gray"]),
    orientation=st.integers(1, 8),
)
def test_an_image_of_pillow_gives_the_bytes_of_its_frame(
    image: Image.Image, orientation: int, layout: str, fit: str, antialias: bool, place: str, **asked: Any
) -> None:
    spec = PictureSpec(
        fit=fit,
        layout=layout,
        antialias=antialias and asked["resize"] in ("bilinear", "bicubic"),
        pad_place=place,
        **asked,
    )
    made = Picture(spec).convert(image, orientation)
    expected = Picture(spec).convert(as_frame(image), orientation)
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("resize", ["bicubic", "lanczos", "bilinear", "nearest"])
@pytest.mark.parametrize("place", ["center", "corner"])
@pytest.mark.parametrize(
    "size", [(180, 320), (90, 320), (10, 320), (320, 180), (300, 320), (7, 112), (56, 112)], ids=str
)
def test_flat_rows_are_not_resized(size: tuple[int, int], place: str, resize: str) -> None:
    image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
    spec = PictureSpec(
        size=(112, 112), fit="pad", pad_value=255, pad_place=place, resize=resize, antialias=resize.startswith("bi")
    )
    np.testing.assert_array_equal(Picture(spec).convert(image)[0], Picture(spec).convert(as_frame(image))[0])


def test_wide_padding_of_an_image_is_made_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tall image, a few rows at a time are padded."""
    image = Image.fromarray(random.integers(0, 256, (300, 20, 3), np.uint8))
    spec = PictureSpec(size=(48, 48), fit="pad", pad_value=9, resize="bicubic", antialias=True)
    expected = Picture(spec).convert(image)[0]
    monkeypatch.setattr(resizing, "_WIDE_PIXELS", 2_000)
    np.testing.assert_array_equal(Picture(spec).convert(image)[0], expected)


def test_padding_of_another_shape_in_the_corner_by_area() -> None:
    """A flat picture in a canvas of 2 : 1; gray; what lies in the padding has its value."""
    source = av.VideoFrame.from_ndarray(np.full((50, 40), 90, np.uint8), "gray")
    spec = PictureSpec(size=(20, 40), fit="pad", pad_value=7, pad_place="corner", layout="gray")
    [made] = Picture(spec).convert(source)
    assert made.shape == (20, 40)
    assert set(made[:, :15].flat) == {90}
    assert set(made[:, 18:].flat) == {7}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_frame_is_padded_upright(orientation: int) -> None:
    source = frame(40, 90, 3)
    spec = PictureSpec(size=(32, 32), fit="pad", pad_value=255, resize="lanczos", pad_place="corner")
    turned = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright(source.to_ndarray(), orientation)), "rgb24")
    np.testing.assert_array_equal(Picture(spec).convert(source, orientation)[0], Picture(spec).convert(turned)[0])


def test_a_letterbox_may_repeat_its_border() -> None:
    source = frame(16, 32, 3)
    spec = PictureSpec(size=(32, 32), fit="letterbox", pad_value="edge")
    expected = np.pad(source.to_ndarray(), [(8, 8), (0, 0), (0, 0)], "edge")
    np.testing.assert_array_equal(Picture(spec).convert(source)[0], expected)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_transparent_pixels_lie_on_a_background_as_pillow_pastes(grey: int) -> None:
    """All colours with all degrees of transparency."""
    colours, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colours, 255 - colours, colours // 2, alpha], -1).astype(np.uint8)
    canvas = Image.new("RGB", (256, 256), (grey,) * 3)
    picture = Image.fromarray(rgba)
    canvas.paste(picture, mask=picture.split()[-1])
    np.testing.assert_array_equal(laid_on(rgba, grey), np.asarray(canvas))


def test_a_picture_of_the_right_size_is_returned_as_it_is() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    assert padded(pixels, (4, 5), (0, 0), 9) is pixels


def test_a_background_is_for_pixels_that_lose_their_transparency() -> None:
    with pytest.raises(ValueError, match="layout planes keeps transparency: leave out background"):
        PictureSpec(layout="planes", background=255)
