"""Images: each has its own outcome, and a bad one does not hurt its neighbours."""

import io
import struct
import zlib
from collections.abc import Sequence

import av
import numpy as np
import pytest
from PIL import Image

from engines.media.images import decode_image, decode_images
from engines.media.sniff import formats
from engines.part import Array, Part
from schemas.errors import ItemTooLarge, MediaError
from schemas.jobs import Key
from schemas.media import Item, MediaInfo
from schemas.pipeline import PipelineSpec
from schemas.segments import Segment
from tests.clips import Clip, pictures, still
from tests.kinds import kind_of
from tests.plans import converter, decode_plan
from tests.unit.media_passes import JOB, pipeline

RESIZED = pipeline(frames=3, size=[16, 20], layout="rgb")
PLANES = pipeline()


def parts_of(files: Sequence[bytes], spec: PipelineSpec = RESIZED) -> list[Part]:
    items = tuple(Item(name=f"{number}.img") for number in range(len(files)))
    segment = Segment(key=Key(job=JOB, segment=0, final=True), media=MediaInfo(kind="image", timed=False), items=items)
    convert = converter(spec).convert
    return list(decode_images(segment, files, decode_plan(spec), convert))


def bomb() -> bytes:
    """A png of a few bytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def turned_jpeg(orientation: int) -> bytes:
    """A jpeg with an EXIF orientation."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    plain = still("mjpeg", (40, 60))
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp"])
@pytest.mark.parametrize("size", [(48, 64), (33, 47), (1, 1)])
def test_every_codec_and_size(codec: str, size: tuple[int, int]) -> None:
    data = still(codec, size)
    assert kind_of(data) == "image"
    frame = decode_image(data).frame
    assert (frame.height, frame.width) == size
    picture = next(pictures(Clip(size=size, frames=1))).astype(int)
    error = np.abs(frame.to_ndarray(format="rgb24").astype(int) - picture)
    assert error.max() == 0 if codec == "png" else error.mean() < 40


@pytest.mark.parametrize("layout", ["rgb24", "rgba", "gray", "ya8", "rgb48be", "monob"])
def test_planes_of_an_image_are_red_green_blue_and_alpha(layout: str) -> None:
    [part] = parts_of([still("png", (30, 40), pixel_format=layout)], PLANES)
    names = ["plane0", "plane1", "plane2"] + (["plane3"] if layout in ("rgba", "ya8") else [])
    assert sorted(part.arrays) == ["index", *names]
    assert all(part.arrays[name].shape == (1, 30, 40) for name in names)
    if layout in ("rgb24", "rgba"):
        found = np.stack([part.arrays[name][0] for name in names[:3]], axis=-1)
        assert np.array_equal(found, next(pictures(Clip(size=(30, 40), frames=1))))


def test_a_window_sees_the_one_picture_in_all_its_ticks() -> None:
    [part] = parts_of([still("png", seed=seed) for seed in (1, 2)])
    assert part.arrays["index"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert part.arrays["pixels"].shape == (2, 16, 20, 3)
    assert part.meta.pts == (0, 0)
    assert (part.meta.frames, part.meta.key.last) == (2, True)


@pytest.mark.parametrize("spec", [RESIZED, PLANES], ids=["resized", "planes"])
def test_what_is_missing_of_a_damaged_jpeg_is_gray_and_noted(spec: PipelineSpec) -> None:
    """FFmpeg would make it green."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(file := io.BytesIO(), "JPEG", quality=90)
    whole = file.getvalue()
    damaged = whole[: len(whole) // 2] + b"\xff\xd9"
    [good], [part] = parts_of([whole], spec), parts_of([damaged], spec)
    assert good.meta.notes == ()
    assert part.meta.notes == ("where an image is damaged, what is missing is gray",)
    for name, array in part.arrays.items():
        if array.ndim > 2:
            assert np.unique(array[0, -array.shape[1] // 4 :]).tolist() == [128], name


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"", "the image is empty: send the whole file"),
        (b"hello", f"not an image of a format that rigflow reads: send {formats()}"),
        (still("mjpeg")[:600], "the jpeg image is truncated: copy or download it again"),
        (still("png")[:-30], "the png image is truncated: copy or download it again"),
        (still("libwebp")[:-30], "the webp image is truncated: copy or download it again"),
        (still("png")[:60] + bytes(60) + still("png")[120:], "the png image is damaged: export it again"),
        (
            bomb(),
            "the image has 50000x50000 pixels, more than 50 million: scale it down or raise the setting max_pixels",
        ),
    ],
    ids=["empty", "text", "jpeg", "png", "webp", "damaged", "bomb"],
)
@pytest.mark.parametrize("spec", [RESIZED, PLANES], ids=["resized", "planes"])
def test_a_bad_image_has_a_reason_and_unhurt_neighbours(bad: bytes, error: str, spec: PipelineSpec) -> None:
    good = [still("mjpeg", seed=1), still("png", seed=2), still("libwebp", seed=3)]
    alone = _rows([part for data in good for part in parts_of([data], spec)])
    parts = parts_of([good[0], bad, good[1], bad, good[2]], spec)
    items = [item for part in parts for item in part.meta.items]
    assert [item.error for item in items] == ["", error, "", error, ""]
    assert [item.name for item in items] == [f"{number}.img" for number in range(5)]
    assert sum(part.meta.frames for part in parts) == 3
    assert sum(part.meta.lost for part in parts) == 2
    assert all(map(np.array_equal, _rows(parts), alone))
    assert [part.meta.key.part for part in parts] == list(range(len(parts)))
    assert [part.meta.key.last for part in parts] == [False] * (len(parts) - 1) + [True]


def test_only_bad_images_make_a_part_with_shapes() -> None:
    [part] = parts_of([b"", b"x"])
    assert part.arrays["pixels"].shape == (0, 16, 20, 3)
    assert part.arrays["index"].shape == (0, 3)


def test_each_image_is_a_part_where_its_size_is_kept() -> None:
    parts = parts_of([still("png", (8, 8)), b"", still("png", (9, 7))], PLANES)
    assert [part.arrays["plane0"].shape[0] for part in parts] == [1, 0, 1]


def test_a_part_is_bounded_by_the_pixels_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.media.images._PART_PIXELS", 3 * 40 * 50 + 1)
    assert [len(part.meta.items) for part in parts_of([still("mjpeg", (40, 50))] * 4)] == [3, 1]


def test_a_part_is_bounded_by_the_bytes_of_its_pictures() -> None:
    wanted = pipeline(size=[2048, 4096], layout="rgb")  # 24 MiB each
    assert [len(part.meta.items) for part in parts_of([still("png", (4, 4))] * 3, wanted)] == [2, 1]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(orientation: int, turns: int) -> None:
    [upright] = parts_of([turned_jpeg(1)], PLANES)
    [turned] = parts_of([turned_jpeg(orientation)], PLANES)
    for name in ("plane0", "plane1", "plane2"):
        assert np.array_equal(turned.arrays[name][0], np.rot90(upright.arrays[name][0], turns))


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ItemTooLarge):
        decode_image(bomb())


def test_an_image_does_not_show_in_the_next_one() -> None:
    """FFmpeg's png decoder adds what it decoded before, if there was something."""
    data = still("png", seed=3)
    expected = next(pictures(Clip(size=(48, 64), seed=3, frames=1)))
    for _ in range(3):
        assert np.array_equal(decode_image(data).frame.to_ndarray(format="rgb24"), expected)


def test_a_decoder_is_well_again_after_a_bad_image() -> None:
    data = still("png")
    for _ in range(3):
        with pytest.raises(MediaError):
            decode_image(data[:60] + bytes(60) + data[120:])
        assert isinstance(decode_image(data).frame, av.VideoFrame)


def _rows(parts: Sequence[Part]) -> list[Array]:
    names = ("pixels", "plane0", "plane1", "plane2")
    return [row for part in parts for name in names if name in part.arrays for row in part.arrays[name]]
