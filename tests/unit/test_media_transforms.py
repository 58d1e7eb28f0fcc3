"""Frames to arrays, held against plain NumPy."""

from itertools import product
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from engines.media.colours import colour_matrix, plane_format
from engines.part import Array
from engines.pictures import HostPictures
from schemas.errors import RigflowError
from schemas.picture import PictureSpec
from tests.clips import Clip, generated, pictures
from tests.plans import converter
from tests.unit.media_passes import decoded, pipeline, segments_of

UNNAMED, LIMITED, FULL = 2, 1, 2
# Luma weights of red, green and blue: BT.601 and BT.709
WEIGHTS = {5: (0.299, 0.587, 0.114), 1: (0.2126, 0.7152, 0.0722)}


def making(**options: Any) -> HostPictures:
    return converter(pipeline(**options))


def smooth(height: int, width: int) -> Array:
    """A picture without edges, `[H, W, 3]` uint8, so that filters differ little."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(x / 17) + np.cos(y / 23), np.sin(y / 19), np.cos((x + y) / 29)]
    return (np.stack(channels, axis=-1) * 50 + 128).astype(np.uint8)


def yuv(red_green_blue: Array, matrix: int, layout: str = "yuv444p") -> av.VideoFrame:
    """A limited-range frame of `red_green_blue`, computed here: 16 + 219 Y', 128 + 224 C."""
    red, green, blue = np.moveaxis(red_green_blue / 255.0, -1, 0)
    kr, kg, kb = WEIGHTS[matrix]
    luma = kr * red + kg * green + kb * blue
    planes = [16 + 219 * luma, 128 + 112 * (blue - luma) / (1 - kb), 128 + 112 * (red - luma) / (1 - kr)]
    array = np.stack([plane.round() for plane in planes]).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(array, "yuv444p")
    frame.colorspace = matrix
    return frame if layout == "yuv444p" else frame.reformat(format=layout)


def test_shrinking_averages_areas() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    pixels = making(size=[8, 12], layout="gray").convert(av.VideoFrame.from_ndarray(picture, "gray"))["pixels"]
    expected = picture.reshape(8, 8, 12, 8).mean(axis=(1, 3))
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("matrix", [1, 5])
def test_colours_are_read_by_the_matrix_that_the_frame_names(matrix: int) -> None:
    picture = smooth(120, 160)
    frame = yuv(picture, matrix)
    expected = picture.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
    pixels = making(size=[60, 80]).convert(frame)["pixels"].astype(float)
    assert np.abs(pixels - expected).mean() < 1.5
    frame.colorspace = 6 - matrix
    assert np.abs(making(size=[60, 80]).convert(frame)["pixels"] - expected).mean() > 3


@pytest.mark.parametrize(
    ("height", "named", "matrix"), [(480, 2, 5), (720, 2, 1), (1080, 5, 5), (480, 1, 1), (720, 3, 1)]
)
def test_colours_without_a_matrix_go_by_size(height: int, named: int, matrix: int) -> None:
    frame = av.VideoFrame(64, height, "yuv420p")
    frame.colorspace = named
    assert colour_matrix(frame) == matrix


@pytest.mark.parametrize(("size", "target"), [((9000, 1), [2, 8192]), ((1, 9000), [300, 7])])
def test_shapes_out_of_proportion_are_an_error(size: tuple[int, int], target: list[int]) -> None:
    with pytest.raises(RigflowError, match="cannot be scaled"):
        making(size=target, fit="crop").convert(av.VideoFrame(size[1], size[0], "yuv420p"))


def luma(frame: av.VideoFrame) -> Array:
    """The first plane in full range, in units of 8 bits, `[H, W]`: BT.709-6 and BT.2020-2, section 3.5 and table 5."""
    plane, deep = frame.planes[0], frame.format.components[0].bits - 8
    lines = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)[:, : plane.width]
    values = lines / (1 << deep)
    return values if frame.color_range == FULL else (values - 16) * 255 / 219


@pytest.mark.parametrize("layout", ["yuv420p", "yuvj420p", "yuv444p", "yuv422p10le", "nv12"])
@pytest.mark.parametrize("matrix", [UNNAMED, 1, 5, 9])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_gray_of_video_is_its_luma_whatever_its_matrix(layout: str, matrix: int, colour_range: int) -> None:
    if layout == "yuvj420p" and colour_range == LIMITED:
        pytest.skip("yuvj is full range by its name")
    frame = yuv(smooth(720, 96), 1, layout)
    frame.colorspace, frame.color_range = matrix, colour_range
    expected = luma(frame).clip(0, 255)
    for resize in ("area", "bilinear"):
        pixels = making(layout="gray", resize=resize).convert(frame)["pixels"]
        assert np.abs(pixels - expected).max() <= (1.001 if "10" in layout else 0.501)
        pixels = making(size=[180, 24], layout="gray", resize=resize).convert(frame)["pixels"]
        near = expected.reshape(180, 4, 24, 4)
        near = near.mean(axis=(1, 3)) if resize == "area" else near[:, 1:3, :, 1:3].mean(axis=(1, 3))
        assert np.abs(pixels - near).max() <= 1.01
    grown = making(size=[1440, 192], layout="gray").convert(frame)["pixels"]
    assert abs(grown.mean() - expected.mean()) < 0.3


@pytest.mark.parametrize(("layout", "weights"), [("rgb24", WEIGHTS[5]), ("gbrp", WEIGHTS[5]), ("gray", (0, 1, 0))])
def test_gray_of_rgb_is_the_luma_of_bt601_and_gray_stays_as_it_is(layout: str, weights: tuple[float, ...]) -> None:
    picture = smooth(720, 96)
    if layout == "gray":
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[..., 1]), "gray")
    else:
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=layout)
    for matrix in (UNNAMED, 1, 9):
        frame.colorspace = matrix
        assert np.abs(making(layout="gray").convert(frame)["pixels"] - picture @ np.array(weights)).max() <= 1


@pytest.mark.parametrize(
    ("size", "target", "box"),
    [
        ((60, 120), [40, 40], (0, 30, 60, 90)),  # wide into square: the sides go
        ((120, 60), [40, 40], (30, 0, 90, 60)),  # tall into square: top and bottom go
        ((60, 120), [30, 60], (0, 0, 60, 120)),  # the same shape: nothing goes
    ],
)
def test_crop_keeps_the_middle(size: tuple[int, int], target: list[int], box: tuple[int, int, int, int]) -> None:
    picture = smooth(*size)
    found = making(size=target, fit="crop").convert(av.VideoFrame.from_ndarray(picture, "rgb24"))["pixels"]
    top, left, bottom, right = box
    cut = np.ascontiguousarray(picture[top:bottom, left:right])
    expected = making(size=target).convert(av.VideoFrame.from_ndarray(cut, "rgb24"))["pixels"]
    assert found.shape == (*target, 3)
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_pad_keeps_the_whole_picture_on_black() -> None:
    picture = np.full((50, 100, 3), 200, np.uint8)
    pixels = making(size=[40, 40], fit="letterbox").convert(av.VideoFrame.from_ndarray(picture, "rgb24"))["pixels"]
    assert not pixels[:10].any()
    assert not pixels[30:].any()
    assert (pixels[10:30] == 200).all()


def as_torchvision(picture: Array, short: int, size: tuple[int, int], pillow: Image.Resampling) -> Array:
    """Resize(short) and CenterCrop(size) of torchvision on a PIL image, in its own arithmetic."""
    image = Image.fromarray(picture)
    width, height = image.size
    scaled = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    image = image.resize(scaled, pillow)
    left, top = round((scaled[0] - size[1]) / 2.0), round((scaled[1] - size[0]) / 2.0)
    return np.asarray(image.crop((left, top, left + size[1], top + size[0])))


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("source", "short", "size"),
    [
        ((480, 640), 256, (224, 224)),
        ((641, 480), 256, (224, 224)),
        ((300, 401), 73, (64, 64)),
        ((97, 331), 40, (32, 24)),
        ((100, 100), 120, (97, 96)),
    ],
)
def test_the_middle_is_cropped_from_a_larger_picture_as_torchvision_does(
    source: tuple[int, int], short: int, size: tuple[int, int], resize: str
) -> None:
    picture = smooth(*source)
    options = {"size": size, "fit": "crop", "short_side": short, "resize": resize, "antialias": True}
    found = making(**options).convert(av.VideoFrame.from_ndarray(picture, "rgb24"))["pixels"]
    np.testing.assert_array_equal(found, as_torchvision(picture, short, size, Image.Resampling[resize.upper()]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fit": "crop", "size": (64, 48), "short_side": 60}, "short_side is 60, and 64 pixels are cropped from it"),
        ({"fit": "stretch", "size": (64, 48), "short_side": 70}, 'short_side is for fit = "crop" of a fixed size'),
        ({"fit": "crop", "short_side": 70}, 'short_side is for fit = "crop" of a fixed size'),
    ],
)
def test_a_short_side_that_nothing_can_be_cropped_from_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PictureSpec(**options)


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (17, 31)])
@pytest.mark.parametrize("target", [[1, 1], [7, 300], [33, 18]])
def test_every_shape_comes_out_as_asked(fit: str, size: tuple[int, int], target: list[int]) -> None:
    frame = av.VideoFrame.from_ndarray(smooth(*size), "rgb24").reformat(format="yuv420p")
    for resize, (layout, shape) in product(("area", "bilinear"), (("rgb", (*target, 3)), ("gray", tuple(target)))):
        pixels = making(size=target, fit=fit, layout=layout, resize=resize).convert(frame)["pixels"]
        assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == (shape, np.uint8, True)


@pytest.mark.parametrize(("size", "target"), [((50, 90), [24, 24]), ((31, 33), [70, 57]), ((64, 64), [64, 12])])
def test_bilinear_looks_at_two_neighbours_a_side(size: tuple[int, int], target: list[int]) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (*size, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    found = making(size=target, resize="bilinear").convert(frame)["pixels"]
    rows, columns = (
        np.maximum((np.arange(to) + 0.5) * length / to - 0.5, 0) for length, to in zip(size, target, strict=True)
    )
    expected = np.empty((*target, 3))
    for (i, y), (j, x) in product(enumerate(rows), enumerate(columns)):
        top, left = int(y), int(x)
        box = picture[top : top + 2, left : left + 2].astype(float)
        box = np.pad(box, ((0, 2 - box.shape[0]), (0, 2 - box.shape[1]), (0, 0)), "edge")
        expected[i, j] = np.einsum("ijc,i,j", box, [1 - y + top, y - top], [1 - x + left, x - left])
    assert np.abs(found - expected).max() < 0.6


# Exif 2.3, 4.6.4: where the stored picture's first row and column are seen
EXIF = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_out_upright(orientation: int) -> None:
    picture = smooth(40, 60)
    upright = av.VideoFrame.from_ndarray(np.ascontiguousarray(EXIF[orientation](picture)), "rgb24")
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    found = making(size=[20, 24]).convert(frame, orientation)["pixels"].astype(int)
    assert np.abs(found - making(size=[20, 24]).convert(upright)["pixels"]).max() <= 2
    planes = making(layout="planes").convert(frame, orientation)
    assert np.array_equal(planes["plane1"], EXIF[orientation](picture[..., 1]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["area", "bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(41, 60), (40, 61), (41, 61)])
def test_the_middle_is_that_of_the_upright_picture(size: tuple[int, int], resize: str, orientation: int) -> None:
    """A picture that keeps its scale and loses an odd number of lines, so that its middle is half a pixel off."""
    stored = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    shown = np.ascontiguousarray(EXIF[orientation](stored))
    short = min(shown.shape[:2])
    for target in ([short, short], [shown.shape[0], shown.shape[1] - 3], [shown.shape[0] - 3, shown.shape[1]]):
        crop = making(size=target, fit="crop", resize=resize)
        found = crop.convert(av.VideoFrame.from_ndarray(stored, "rgb24"), orientation)["pixels"]
        assert np.array_equal(found, crop.convert(av.VideoFrame.from_ndarray(shown, "rgb24"))["pixels"])


def test_a_turned_clip_comes_out_like_the_one_it_was_turned_from() -> None:
    spec = pipeline()
    plain, turned = Clip(size=(70, 130)), Clip(size=(70, 130), rotation=90)
    planes = []
    for clip in (plain, turned):
        media, segments = segments_of(generated(clip), spec, 100)
        planes.append(decoded(media, segments, spec, converter(spec).convert)[0].arrays["plane0"])
    assert np.array_equal(planes[1], np.rot90(planes[0], axes=(1, 2)))


@pytest.mark.parametrize(
    ("name", "planes"),
    [
        ("yuv420p", "yuv420p"),
        ("yuvj422p", "yuvj422p"),
        ("gray", "gray"),
        ("yuv440p", "yuv420p"),
        ("yuvj440p", "yuvj420p"),
        ("yuv411p", "yuv420p"),
        ("yuv410p", "yuv420p"),
        ("rgb48le", "yuv420p"),
        ("yuv422p10le", "yuv422p"),
        ("yuv444p12be", "yuv444p"),
        ("gray10le", "gray"),
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p"),
        ("gbrp", "yuv420p"),
    ],
)
def test_planes_have_eight_bits(name: str, planes: str) -> None:
    assert plane_format(name) == planes
    frame = av.VideoFrame.from_ndarray(next(pictures(Clip(size=(38, 54)))), "rgb24").reformat(format=name)
    arrays = making(layout="planes").convert(frame)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)}
    assert arrays["plane0"].shape == (38, 54)
    assert all(array.flags.c_contiguous for array in arrays.values())


def test_planes_are_those_of_the_decoder() -> None:
    array = np.random.default_rng(1).integers(0, 256, (60, 50), np.uint8)
    planes = making(layout="planes").convert(av.VideoFrame.from_ndarray(array, "yuv420p"))
    assert np.array_equal(planes["plane0"], array[:40])
    assert np.array_equal(planes["plane1"].reshape(-1), array[40:50].reshape(-1))
    assert np.array_equal(planes["plane2"].reshape(-1), array[50:].reshape(-1))


def test_arrays_outlive_their_frame() -> None:
    pre = making(layout="planes")
    kept = []
    for value in range(50):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64), value, np.uint8), "gray")
        kept.append(pre.convert(frame)["plane0"])
        del frame
    assert [int(plane.max()) for plane in kept] == list(range(50))
