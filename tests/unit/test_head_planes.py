"""The heads segment, matte, image and depth, against loops in plain Python and Pillow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.heads.planes import picture_bytes
from engines.heads.view import View, view_of
from engines.planned import Tensor
from engines.registry import load
from schemas.errors import ModelError
from schemas.picture import PictureSpec
from tests.unit.detector_cases import ROWS, softmax, uniform
from tests.unit.head_reference import described

STRETCH = PictureSpec(size=(12, 16))
LETTERBOX = PictureSpec(size=(24, 24), fit="letterbox")  # of a source of 30 x 60: 12 rows in the middle
SOURCE = (30, 60)


def decoded(
    kind: str,
    outputs: Mapping[str, np.ndarray],
    spec: PictureSpec = STRETCH,
    source: tuple[int, int] = SOURCE,
    **options: Any,
) -> np.ndarray:
    """The only array of a head, as it planned it."""
    head = load("heads", kind)(options, described(outputs), spec)
    found = head.decode(outputs, [view_of(source, spec)] * ROWS)
    (name, tensor), (key, value) = *head.plan().items(), *found.items()
    assert (name, tensor.dtype) == (key, value.dtype.name)
    for side, planned in zip(value.shape[1:], tensor.shape[1:], strict=True):
        assert isinstance(planned, str) or side == planned
    if not head.by_source:
        assert all(isinstance(side, int) for side in tensor.shape[1:])
    return value


def check_bytes(found: np.ndarray, expected: list[list[int]]) -> None:
    """Equal, but for values whose half is one in float32 alone."""
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_class_of_a_pixel_is_that_of_the_highest_score(layout: str) -> None:
    scores = uniform(5, 12, 16)
    given = scores if layout == "nchw" else np.ascontiguousarray(scores.transpose(0, 2, 3, 1))
    mask = decoded("segment", {"o": given}, layout=layout)
    for number in range(ROWS):
        for row in range(12):
            for column in range(16):
                pixel = scores[number, :, row, column].tolist()
                assert mask[number, row, column] == pixel.index(max(pixel))


def test_a_mask_may_be_one_channel_or_class_numbers() -> None:
    values = uniform(1, 12, 16)
    np.testing.assert_array_equal(decoded("segment", {"o": values}, threshold=0.7), values[:, 0] > np.float32(0.7))
    numbers = np.floor(uniform(12, 16, high=200)).astype(np.int64)
    np.testing.assert_array_equal(decoded("segment", {"o": numbers}), numbers)


@pytest.mark.parametrize("stretch", [False, True])
def test_a_matte_is_bytes(stretch: bool) -> None:
    values = uniform(2, 12, 16, low=-0.2, high=1.2)
    alpha = decoded("matte", {"o": values}, channel=1, stretch=stretch)
    for number in range(ROWS):
        plane = values[number, 1].tolist()
        least, most = (f(f(row) for row in plane) for f in (min, max)) if stretch else (0, 1)
        expected = [[round(min(max((v - least) / (most - least), 0), 1) * 255) for v in row] for row in plane]
        check_bytes(alpha[number], expected)


def test_a_matte_may_be_one_class_of_several() -> None:
    values = uniform(12, 16, 2, low=-2, high=2)
    alpha = decoded("matte", {"o": values}, layout="nhwc", channel=1, activation="softmax")
    assert alpha[0, 3, 4] == round(softmax(values[0, 3, 4].tolist())[1] * 255)


@pytest.mark.parametrize(("span", "colours"), [((0, 1), "rgb"), ((-1, 1), "bgr"), ((0, 255), "gray")])
def test_an_image_is_bytes_of_red_green_and_blue(span: tuple[float, float], colours: str) -> None:
    margin = (span[1] - span[0]) / 10
    channels = 1 if colours == "gray" else 3
    values = uniform(channels, 12, 16, low=span[0] - margin, high=span[1] + margin)
    image = decoded("image", {"o": values}, range=span, colours=colours)
    order = {"rgb": "012", "bgr": "210", "gray": "000"}[colours]
    for number in range(ROWS):
        for channel, place in enumerate(order):
            plane = values[number, int(place)].tolist()
            expected = [
                [round(min(max((v - span[0]) / (span[1] - span[0]), 0), 1) * 255) for v in row] for row in plane
            ]
            check_bytes(image[number, ..., channel], expected)


def test_a_large_image_with_values_that_are_none_is_bytes() -> None:
    values = np.linspace(-0.1, 1.1, 3 * 90 * 1500, dtype=np.float32).reshape(3, 90, 1500)
    values[:, 88:, :3] = np.nan, np.inf, -np.inf
    [image] = picture_bytes(np.moveaxis(values, 0, 2)[None], (2, 1, 0), 0, 1)
    expected = np.clip(np.where(np.isnan(values), 0, values), 0, 1) * np.float32(255)
    np.testing.assert_array_equal(image, np.rint(expected).astype(np.uint8)[::-1].transpose(1, 2, 0))


def test_an_image_of_bytes_stays_as_it_is() -> None:
    values = np.floor(uniform(12, 16, 3, high=256)).astype(np.uint8)
    np.testing.assert_array_equal(decoded("image", {"o": values}, layout="nhwc"), values)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("source", [(46, 62), (64, 32), (31, 33)])
def test_padding_to_a_multiple_is_cut_away_again(source: tuple[int, int], factor: int) -> None:
    spec = PictureSpec(size="source", multiple=32)
    height, width = view_of(source, spec).picture
    values = uniform(3, height * factor, width * factor)
    outputs = {"o": Tensor("float32", ("N", 3, "h", "w"))}
    head = load("heads", "image")({}, outputs, spec)
    found = head.decode({"o": values}, [view_of(source, spec)] * ROWS)["image"]
    assert found.shape == (ROWS, source[0] * factor, source[1] * factor, 3)
    plain = np.rint(values[:, :, : source[0] * factor, : source[1] * factor] * np.float32(255))
    np.testing.assert_array_equal(found, plain.transpose(0, 2, 3, 1))
    assert head.by_source


def test_a_letterbox_is_cut_away() -> None:
    depth = uniform(24, 24, high=9)
    np.testing.assert_array_equal(decoded("depth", {"o": depth}, LETTERBOX), depth[:, 6:18])
    np.testing.assert_array_equal(decoded("depth", {"o": depth}, LETTERBOX, size="model"), depth)
    small = uniform(1, 12, 12, high=9)  # the output has half the size of the picture
    np.testing.assert_array_equal(decoded("depth", {"o": small}, LETTERBOX), small[:, 0, 3:9])


@pytest.mark.parametrize(
    ("kind", "spec", "part"),
    [
        ("depth", LETTERBOX, (0, 6, 24, 18)),
        ("matte", LETTERBOX, (0, 6, 24, 18)),
        ("depth", PictureSpec(size=(24, 24), fit="letterbox", pad_place="corner"), (0, 0, 24, 12)),
        ("depth", PictureSpec(size=(24, 24)), (0, 0, 24, 24)),
    ],
)
def test_an_answer_at_the_sources_size_is_pillows(kind: str, spec: PictureSpec, part: tuple[int, ...]) -> None:
    values = uniform(24, 24)
    found = decoded(kind, {"o": values}, spec, size="source", resize="bicubic")
    for number in range(ROWS):
        plane = values[number] if kind == "depth" else np.rint(values[number] * 255).astype(np.uint8)
        cut = Image.fromarray(plane).resize(SOURCE[::-1], Image.Resampling.BICUBIC, part)
        np.testing.assert_array_equal(found[number], np.asarray(cut))


def test_what_a_crop_does_not_show_is_zero() -> None:
    spec = PictureSpec(size=(30, 30), fit="crop")  # of 30 x 60: columns 15 to 45
    mask = decoded("segment", {"o": np.ones((ROWS, 30, 30), np.int64)}, spec, size="source")
    assert mask.shape == (ROWS, *SOURCE)
    assert mask[:, :, 15:45].all()
    assert not mask[:, :, :15].any()
    assert not mask[:, :, 45:].any()


def test_pictures_of_different_sizes_are_not_mixed() -> None:
    outputs = {"o": uniform(24, 24)}
    head = load("heads", "depth")({}, described(outputs), LETTERBOX)
    views = [view_of(SOURCE, LETTERBOX), view_of((10, 10), LETTERBOX), view_of(SOURCE, LETTERBOX)]
    assert head.by_source
    with pytest.raises(ModelError, match="pictures of different sizes are in one batch"):
        head.decode(outputs, views)


def test_no_rows_are_no_rows() -> None:
    for kind in ("segment", "matte", "depth", "image"):
        outputs = {"o": uniform(3 if kind == "image" else 1, 12, 16)[:0]}
        head = load("heads", kind)({}, described(outputs), STRETCH)
        (value,) = head.decode(outputs, []).values()
        assert value.shape[:3] == (0, 12, 16)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("image", {"colours": "gray"}, "head image: output o has 3 channels, and gray 1: correct colours or layout"),
        ("image", {"colours": "grb"}, "head image, option colours: there are rgb, bgr, gray"),
        ("image", {"range": [1, 1]}, "range takes the value of black and a larger value of white"),
        ("image", {"size": "full"}, "head image, option size: there are model, content, source"),
        ("depth", {}, "head depth: output o has 3 channels: it needs one"),
        ("matte", {"channel": 3}, "head matte: there is no channel 3 of 3"),
        ("segment", {"labels": ["a"]}, "head segment: 1 labels for 3 classes"),
    ],
)
def test_errors_say_what_to_do(kind: str, options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load("heads", kind)(options, {"o": Tensor("float32", ("N", 3, 12, 16))}, STRETCH)


def test_a_view_knows_what_it_shows() -> None:
    view = View((30, 60), (30, 30), (30, 60), 0, -15)
    assert (view.content, view.shown) == ((0, 0, 30, 30), (0, 15, 30, 45))
