"""Images come back as png, bit for bit, under names that cannot leave their folder."""

import re
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from engines.outputs.images import NamedFiles
from engines.part import Array
from schemas.errors import PipelineError
from schemas.media import Item, MediaInfo
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

RNG = np.random.default_rng(3)


def noise(*shape: int) -> Array:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def read_png(path: Path, pix_fmt: str) -> Array:
    with av.open(path) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == pix_fmt
    return frame.to_ndarray(format=pix_fmt)


@pytest.mark.parametrize(("channels", "pix_fmt"), [(1, "gray"), (3, "rgb24"), (4, "rgba")])
def test_a_single_image_is_one_file_and_exact(tmp_path: Path, channels: int, pix_fmt: str) -> None:
    pixels = noise(1, 37, 53, channels)
    planes = {f"plane{number}": pixels[..., number] for number in range(channels)}
    part = make_part(IMAGES, planes, [0], items=[Item(name="photo.jpg")])
    (path,) = assemble(format_of("video"), tmp_path / "photo.upscale2x", IMAGES, [part])
    assert path == tmp_path / "photo.upscale2x.png"
    np.testing.assert_array_equal(read_png(path, pix_fmt), pixels[0].squeeze())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("shape", "pix_fmt"), [((2, 20, 30), "gray"), ((2, 20, 30, 3), "rgb24")])
def test_pixels_of_a_resized_layout(tmp_path: Path, shape: tuple[int, ...], pix_fmt: str) -> None:
    pixels = noise(*shape)
    items = [Item(name="a.png"), Item(name="bad.png", error="not an image"), Item(name="b.png")]
    files = assemble(
        format_of("video"), tmp_path / "set", IMAGES, [make_part(IMAGES, {"pixels": pixels}, [0, 0], items=items)]
    )
    assert files == [tmp_path / "set" / "a.png", tmp_path / "set" / "b.png"]
    for path, expected in zip(files, pixels, strict=True):
        np.testing.assert_array_equal(read_png(path, pix_fmt), expected)


@pytest.mark.parametrize("media", [IMAGES, VIDEO], ids=["image", "video"])
@pytest.mark.parametrize(
    ("arrays", "reported"),
    [
        ({"pixels": noise(1, 3, 48, 64)}, r"`pixels` has shape \[1, 3, 48, 64\]"),
        ({"pixels": noise(1, 0, 64)}, r"`pixels` has shape \[1, 0, 64\]"),
        ({"pixels": noise(1, 48, 64).astype(np.float32)}, "`pixels` is float32"),
        ({"plane0": noise(1, 3, 48, 64, 1)}, r"`plane0` has shape \[1, 3, 48, 64, 1\]"),
        ({f"plane{n}": noise(1, 48 // (n + 1), 64) for n in range(3)}, "scale all planes alike"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(media: MediaInfo, arrays: dict[str, Array], reported: str) -> None:
    with pytest.raises(PipelineError) as caught:
        format_of("video").encode(make_part(media, arrays, [0], items=[Item(name="a.png")]))
    assert re.search(reported, str(caught.value))


def test_names_stay_in_their_folder_and_apart(tmp_path: Path) -> None:
    names = [
        "../../etc/passwd",
        "a.jpg",
        "a.png",
        "sub/a.webp",
        "..",
        "",
        "C:\\pictures\\b.jpg",
        "nul\0.jpg",
        "a-2.gif",
    ]
    parts = [
        make_part(IMAGES, {"plane0": noise(1, 4, 4)}, [0], number, [Item(name=name)])
        for number, name in enumerate(names)
    ]
    # one part an image: the first of several must not take itself for the only one
    parts[0] = parts[0].with_arrays(
        parts[0].arrays, key=parts[0].meta.key.model_copy(update={"last": False, "final": False})
    )
    files = assemble(format_of("video"), tmp_path / "set", IMAGES, parts)
    assert {path.parent for path in files} == {tmp_path / "set"}
    assert [path.name for path in files] == [
        "passwd.png", "a.png", "a-2.png", "a-3.png", "...png", "unnamed.png", "b.png", "nul_.png", "a-2-2.png",
    ]  # fmt: skip
    assert sorted((tmp_path / "set").iterdir()) == sorted(files)


def test_failed_images_leave_no_file(tmp_path: Path) -> None:
    part = make_part(IMAGES, {}, [], items=[Item(name="a.jpg", error="truncated")])
    assert assemble(format_of("video"), tmp_path / "a", IMAGES, [part]) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("kept")
    items = [Item(name="a"), Item(name="b")]
    format_ = format_of("video")
    assembler = format_.assemble(tmp_path / "set", IMAGES)
    part = make_part(IMAGES, {"plane0": noise(2, 4, 4)}, [0, 0], items=items)
    encoded = format_.encode(part)
    assembler.add(part.meta, encoded.arrays, encoded.facts)
    assembler.abort()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_many_images_need_no_descriptor_each(tmp_path: Path) -> None:
    items = [Item(name=f"{number}.jpg") for number in range(1500)]
    part = make_part(IMAGES, {"plane0": noise(1500, 2, 2)}, [0] * 1500, items=items)
    assert len(assemble(format_of("video"), tmp_path / "set", IMAGES, [part])) == 1500


def test_a_part_without_pictures_says_what_is_missing() -> None:
    part = make_part(IMAGES, {"score": np.zeros(1)}, [0], items=[Item(name="a")])
    with pytest.raises(PipelineError, match="format video needs `plane0` or `pixels`: have a resize stage"):
        format_of("video").encode(part)


def test_a_large_image_is_encoded_without_a_copy_of_its_planes() -> None:
    planes = {f"plane{number}": np.zeros((1, 2000, 2000), np.uint8) for number in range(3)}
    part = make_part(IMAGES, planes, [0], items=[Item(name="a.png")])
    tracemalloc.start()
    format_of("video").encode(part)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_planes_of_unlike_size_are_no_image() -> None:
    planes = {"plane0": np.zeros((1, 8, 8), np.uint8), "plane1": np.zeros((1, 4, 4), np.uint8)}
    with pytest.raises(PipelineError, match="are no picture: a model must scale all planes"):
        format_of("video").encode(make_part(IMAGES, planes, [0], items=[Item(name="a.png")]))


def test_very_many_images_of_one_name(tmp_path: Path) -> None:
    files = NamedFiles(tmp_path / "set", "png")
    names = {files.path("frame").name for _ in range(200_000)}
    assert len(names) == 200_000
    assert {"frame.png", "frame-2.png", "frame-200000.png"} <= names
    assert files.path("frame-2").name == "frame-2-2.png"
