"""image: pictures that a model made, as files of images and as video."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from engines.part import Array
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

ITEMS = [Item(name="a.jpg"), Item(name="bad.png", error="not an image"), Item(name="b.png")]


def smooth(count: int, height: int, width: int, channels: int) -> Array:
    y, x = np.mgrid[:height, :width]
    waves = [
        128 + 100 * np.sin((x + 9 * n) / 11 + c) * np.cos((y - 5 * n) / 13)
        for n in range(count)
        for c in range(channels)
    ]
    return np.stack(waves).reshape(count, channels, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_images_are_files_of_the_kind_that_options_say(tmp_path: Path, kind: str, suffix: str, channels: int) -> None:
    pictures = smooth(2, 37, 53, channels)
    arrays = {"image": pictures[..., 0] if channels == 1 else pictures, "boxes": Ragged.of([np.zeros((1, 4))] * 2)}
    files = assemble(
        format_of("image", file=kind, quality=95),
        tmp_path / "set",
        IMAGES,
        [make_part(IMAGES, arrays, [0, 0], items=ITEMS)],
    )
    assert files == [tmp_path / "set" / f"a.{suffix}", tmp_path / "set" / f"b.{suffix}"]
    for path, expected in zip(files, pictures, strict=True):
        with Image.open(path) as image:
            assert image.format == kind.upper()
            found = np.asarray(image.convert("RGBA" if channels == 4 and kind != "jpeg" else "RGB")).astype(int)
        wanted = expected[..., :3] if kind == "jpeg" else expected
        assert abs(found - wanted).mean() < (0.001 if kind == "png" else 3)


def test_quality_is_that_of_the_file() -> None:
    part = make_part(IMAGES, {"image": smooth(1, 64, 64, 3)}, [0], items=[Item(name="a")])
    sizes = [
        len(format_of("image", file=kind, quality=quality).encode(part).arrays["data"])
        for kind in ("jpeg", "webp")
        for quality in (20, 90)
    ]
    assert sizes[0] < sizes[1] / 1.5
    assert sizes[2] < sizes[3] / 1.5


def test_the_array_is_the_one_that_is_named_or_that_a_head_makes(tmp_path: Path) -> None:
    arrays = {name: np.full((1, 8, 8), value, np.uint8) for name, value in (("mask", 3), ("alpha", 2), ("mine", 9))}
    part = make_part(IMAGES, arrays, [0], items=[Item(name="a.png")])
    for options, value in (({}, 2), ({"array": "mine"}, 9), ({"array": "mask"}, 3)):
        data = format_of("image", **options).encode(part).arrays["data"]
        assert np.asarray(Image.open(BytesIO(data.tobytes()))).tolist() == [[value] * 8] * 8


@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_video_is_the_one_that_format_video_makes(tmp_path: Path, colours: tuple[int, ...]) -> None:
    pictures = smooth(20, 48, 64, 3)
    pixels = pictures if colours else pictures[..., 0]
    files = []
    for name, arrays in (("image", {"image": pixels}), ("video", {"pixels": pixels})):
        parts = [
            make_part(
                VIDEO, {key: array[start : start + 10] for key, array in arrays.items()}, range(start, start + 10), n
            )
            for n, start in enumerate((0, 10))
        ]
        files += assemble(format_of(name), tmp_path / name, VIDEO, parts)
    assert [path.suffix for path in files] == [".mp4", ".mp4"]
    assert files[0].read_bytes() == files[1].read_bytes()
    with av.open(files[0]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 20
    expected = pictures if colours else pictures[..., :1]
    assert abs(np.stack(frames).astype(int) - expected).mean() < 4


def test_images_that_all_failed_are_no_files(tmp_path: Path) -> None:
    part = make_part(IMAGES, {}, [], items=[Item(name="a.png", error="not an image")])
    assert assemble(format_of("image"), tmp_path / "a", IMAGES, [part]) == []


@pytest.mark.parametrize(
    ("arrays", "media", "message"),
    [
        (
            {"x": ("uint8", (8, 8))},
            "image",
            "the part holds `x`: take a model whose card has a head image",
        ),
        (
            {"image": ("float32", (8, 8, 3))},
            "image",
            "`image` is float32: format image takes uint8; round in",
        ),
        ({"image": ("uint8", (3, 8, 8))}, "video", "`image` is uint8 [W, 3, 8, 8]: of video, format image takes"),
        ({"image": ("uint8", (8, 8, 4))}, "video", "`image` is uint8 [W, 8, 8, 4]: of video, format image takes"),
    ],
)
def test_what_is_no_picture_is_refused_at_once(arrays: dict[str, Any], media: str, message: str) -> None:
    planned = {name: Tensor(dtype, ("W", *shape)) for name, (dtype, shape) in arrays.items()}
    with pytest.raises(PipelineError, match=re.escape(message)):
        format_of("image").check(planned, [media])


def test_a_kind_of_file_that_holds_no_such_picture() -> None:
    part = make_part(IMAGES, {"image": np.zeros((1, 1, 20_000), np.uint8)}, [0], items=[Item(name="a")])
    with pytest.raises(PipelineError, match='a picture of 20000x1 cannot be a webp file: set file = "png"'):
        format_of("image", file="webp").encode(part)
