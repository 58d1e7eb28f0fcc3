"""Padding before scaling, and transparent pixels on a background: the bytes of Pillow."""

import av
import numpy as np
import pytest
from PIL import Image

from engines.canvas import laid_on, padded
from engines.media.orientation import upright
from engines.transforms import Picture
from schemas.picture import PictureSpec

random = np.random.default_rng(4)


def frame(*shape: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(random.integers(0, 256, shape, np.uint8), "rgb24" if len(shape) == 3 else "gray")


@pytest.mark.parametrize("resize", ["bicubic", "lanczos", "bilinear", "nearest"])
@pytest.mark.parametrize("size", [(200, 300), (301, 200), (64, 64), (20, 31), (3000, 7)], ids=str)
def test_a_frame_is_padded_and_then_scaled(size: tuple[int, int], resize: str) -> None:
    given = frame(*size, 3)
    spec = PictureSpec(size=(64, 64), fit="pad", pad_value=200, resize=resize, antialias=True)
    longest = max(size)
    square = Image.new("RGB", (longest, longest), (200, 200, 200))
    square.paste(Image.fromarray(given.to_ndarray()), ((longest - size[1]) // 2, (longest - size[0]) // 2))
    expected = square.resize((64, 64), getattr(Image.Resampling, resize.upper()))
    np.testing.assert_array_equal(Picture(spec).convert(given)[0], np.asarray(expected))


def test_padding_of_another_shape_in_the_corner_by_area() -> None:
    """A flat picture in a canvas of 2 : 1; gray; what lies in the padding has its value."""
    given = av.VideoFrame.from_ndarray(np.full((50, 40), 90, np.uint8), "gray")
    spec = PictureSpec(size=(20, 40), fit="pad", pad_value=7, pad_place="corner", layout="gray")
    [made] = Picture(spec).convert(given)
    assert made.shape == (20, 40)
    assert set(made[:, :15].flat) == {90}
    assert set(made[:, 18:].flat) == {7}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_frame_is_padded_upright(orientation: int) -> None:
    given = frame(40, 90, 3)
    spec = PictureSpec(size=(32, 32), fit="pad", pad_value=255, resize="lanczos", pad_place="corner")
    turned = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright(given.to_ndarray(), orientation)), "rgb24")
    np.testing.assert_array_equal(Picture(spec).convert(given, orientation)[0], Picture(spec).convert(turned)[0])


def test_a_letterbox_may_repeat_its_border() -> None:
    given = frame(16, 32, 3)
    spec = PictureSpec(size=(32, 32), fit="letterbox", pad_value="edge")
    expected = np.pad(given.to_ndarray(), [(8, 8), (0, 0), (0, 0)], "edge")
    np.testing.assert_array_equal(Picture(spec).convert(given)[0], expected)


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
