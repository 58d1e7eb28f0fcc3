"""Images of every format, mode, orientation and odd size come out as plain Pillow shows them."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from engines.media import sniff
from engines.media.images import decode_images
from engines.part import Array, Part
from schemas.jobs import Key
from schemas.media import Item, MediaInfo
from schemas.pipeline import PipelineSpec
from schemas.segments import Segment
from tests.clips import still
from tests.kinds import kind_of
from tests.plans import converter, decode_plan
from tests.unit.media_passes import JOB, pipeline

PLANES = pipeline()
RESIZED = pipeline(size=[16, 20], layout="rgb")
SIZES = [(64, 48), (33, 47), (5, 3), (1, 1)]
ORIENTATION = 0x0112
LOSSY = {"jpeg", "webp", "avif"}
# what Pillow writes: format -> options, and the modes it takes
WRITTEN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("jpeg", {"quality": 95, "subsampling": 0}, ["L", "RGB", "CMYK"]),
    ("jpeg", {"quality": 95, "progressive": True}, ["L", "RGB", "CMYK"]),
    ("jpeg", {"quality": 95, "subsampling": "4:2:2"}, ["RGB"]),
    ("jpeg", {"quality": 95, "keep_rgb": True}, ["RGB"]),
    ("png", {}, ["1", "L", "LA", "P", "Pt", "RGB", "RGBA", "I;16", "Lt", "RGBt"]),
    ("webp", {"lossless": True}, ["RGB", "RGBA"]),
    ("webp", {"quality": 95}, ["RGB", "RGBA"]),
    ("gif", {}, ["L", "P", "Pt", "RGB"]),
    ("avif", {"quality": 95, "subsampling": "4:4:4"}, ["RGB", "RGBA"]),
    ("bmp", {}, ["1", "L", "P", "RGB", "RGBA"]),
    *(
        ("tiff", {"compression": kind}, ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
        for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
    ),
    ("tiff", {"compression": "jpeg", "quality": 95}, ["L", "RGB"]),
    ("tiff", {"compression": "group4"}, ["1"]),
    ("ppm", {}, ["1", "L", "RGB", "I;16", "I"]),
    ("tga", {}, ["1", "L", "LA", "P", "RGB", "RGBA"]),
    ("tga", {"compression": "tga_rle"}, ["L", "LA", "P", "RGB", "RGBA"]),
    ("jpeg2000", {"no_jp2": True}, ["L", "LA", "RGB", "RGBA", "I;16"]),
    ("jpeg2000", {}, ["L", "LA", "RGB", "RGBA", "I;16"]),
]
# what FFmpeg writes: encoder -> pixel formats
ENCODED = {
    "mjpeg": ["yuvj420p", "yuvj422p", "yuvj444p"],
    "png": ["rgb24", "rgba", "rgb48be", "rgba64be", "gray", "gray16be", "ya8", "ya16be", "monob"],
    "tiff": ["rgb24", "rgba", "rgb48le", "rgba64le", "gray", "gray16le", "ya8", "yuv420p", "yuv444p", "monob", "monow"],
    "ppm": ["rgb24", "rgb48be"],
    "pgm": ["gray", "gray16be"],
    "bmp": ["bgr24", "bgra", "rgb565le", "rgb555le", "gray", "monob"],
    "targa": ["bgr24", "bgra", "rgb555le", "gray"],
    "jpeg2000": ["rgb24", "rgba", "rgb48le", "gray", "gray16le", "yuv420p"],
}
TURNABLE = ("jpeg", "png", "webp", "tiff", "avif")


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """A smooth picture without any symmetry; modes ending in `t` have one transparent colour."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    planes = [200 * x / width + 20, 200 * y / height + 30, 120 * x / width + 100 * (1 - y / height), 255 - 2 * x - y]
    pixels = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    if mode in ("I;16", "I"):
        return Image.fromarray((planes[0] * 257).astype(np.uint16 if mode == "I;16" else np.int32))
    image = Image.fromarray(pixels, "RGBA") if mode.endswith("A") else Image.fromarray(pixels[..., :3], "RGB")
    return image.convert(mode.removesuffix("t"))


def written(name: str, mode: str, size: tuple[int, int], orientation: int = 1, **options: Any) -> bytes:
    """A file of one picture by Pillow."""
    image, file = picture(mode, size), io.BytesIO()
    if mode.endswith("t"):
        corner: Any = image.getpixel((0, 0))
        options["transparency"] = corner
    if orientation != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(file, name, **options)
    return file.getvalue()


def expected(data: bytes) -> Array:
    """`[H, W, 3 or 4] uint8` as Pillow shows the file, upright."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
        alpha = "transparency" in opened.info or opened.mode in ("LA", "PA", "RGBA")
    if image.mode.startswith("I"):
        gray = np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))


def parts_of(data: bytes, spec: PipelineSpec = PLANES) -> Part:
    segment = Segment(
        key=Key(job=JOB, segment=0, final=True), media=MediaInfo(kind="image", timed=False), items=(Item(name="a"),)
    )
    [part] = decode_images(segment, [data], decode_plan(spec), converter(spec).convert)
    return part


def decoded(data: bytes) -> Array:
    part = parts_of(data)
    assert not part.meta.items[0].error
    planes = [part.arrays[name][0] for name in ("plane0", "plane1", "plane2", "plane3") if name in part.arrays]
    return np.stack(planes * 3 if len(planes) == 1 else planes, axis=-1)


def cases() -> Iterator[Any]:
    for name, options, modes in WRITTEN:
        for mode in modes:
            words = "-".join([name, mode, *map(str, options.values())])
            yield pytest.param(name, mode, options, id=words)


def check(data: bytes, lossy: bool) -> None:
    assert kind_of(data) == "image"
    found, wanted = decoded(data), expected(data)
    assert found.shape == wanted.shape
    error = np.abs(found.astype(int) - wanted)
    if found.shape[2] == 4:  # what cannot be seen may have any colour
        error[wanted[..., 3] == 0, :3] = 0
    assert error.max() <= (3 if lossy else 1), error.max()
    assert error.mean() <= (0.5 if lossy else 0.6), error.mean()


@pytest.mark.parametrize(("name", "mode", "options"), list(cases()))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_format_mode_and_size(name: str, mode: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    check(written(name, mode, size, **options), name in LOSSY or options.get("compression") == "jpeg")


@pytest.mark.parametrize(("encoder", "layout"), [(name, layout) for name in ENCODED for layout in ENCODED[name]])
@pytest.mark.parametrize("size", [(48, 64), (33, 47)], ids=str)
def test_every_pixel_format_that_ffmpeg_writes(encoder: str, layout: str, size: tuple[int, int]) -> None:
    check(still(encoder, size, pixel_format=layout), encoder == "mjpeg")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", TURNABLE)
@pytest.mark.parametrize("size", [(33, 47), (64, 24)], ids=str)
def test_every_orientation(name: str, orientation: int, size: tuple[int, int]) -> None:
    check(written(name, "RGB", size, orientation), name in LOSSY)


@pytest.mark.parametrize("name", ["gif", "png", "webp", "tiff", "avif"])
def test_a_picture_with_transparency_has_a_note_where_there_is_no_place_for_it(name: str) -> None:
    mode = "Pt" if name == "gif" else "RGBA"
    solid, clear = written(name, "RGB", (64, 48)), written(name, mode, (64, 48))
    assert parts_of(solid, RESIZED).meta.notes == parts_of(clear).meta.notes == ()
    [note] = parts_of(clear, RESIZED).meta.notes
    assert note == "transparency of images that have some was left out: the pipeline's layout has no place for it"
    opaque = io.BytesIO()
    Image.new("RGBA", (64, 48), (10, 200, 30, 255)).save(opaque, name)
    assert parts_of(opaque.getvalue(), RESIZED).meta.notes == ()


def test_of_a_tiff_with_several_pages_the_first_is_used_and_a_note_says_so() -> None:
    file = io.BytesIO()
    pages = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    pages[0].save(file, "tiff", save_all=True, append_images=pages[1:])
    part = parts_of(file.getvalue())
    assert part.meta.notes == ("of each image that has several pictures only the first is used",)
    assert [part.arrays[f"plane{n}"].mean() for n in range(3)] == [255, 0, 0]


@pytest.mark.parametrize(
    ("mode", "words"),
    [("F", "floating-point pixels, and does not say which number is white"), ("I", "32-bit pixels")],
)
def test_numbers_without_a_white_are_refused(mode: str, words: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (20, 10), 1).save(file, "tiff")
    assert words in parts_of(file.getvalue()).meta.items[0].error


@pytest.mark.parametrize("name", ["gif", "avif", "bmp", "tiff", "ppm", "tga", "jpeg2000"])
def test_what_is_cut_off_is_refused_by_its_format(name: str) -> None:
    options = {"compression": "tga_rle"} if name == "tga" else {"compression": "tiff_lzw"} if name == "tiff" else {}
    data = written(name, "RGB", (64, 48), **options)
    for kept in (len(data) // 2, 70):
        error = parts_of(data[:kept]).meta.items[0].error
        assert f"the {name} image" in error, kept
        assert "\n" not in error


@pytest.mark.parametrize("name", ["EPS", "PDF", "ICO", "DDS", "MSP", "PCX", "SGI", "XBM", "QOI"])
def test_formats_that_are_not_listed_are_not_opened(name: str) -> None:
    file = io.BytesIO()
    Image.new("1" if name in ("MSP", "XBM") else "RGB", (32, 32)).save(file, name)
    assert kind_of(file.getvalue()) == "video"  # which says that it is no media of a format that is read here
    assert "not an image of a format that rigflow reads" in parts_of(file.getvalue()).meta.items[0].error


def test_heic_needs_a_package() -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    assert kind_of(data) == "image"
    error = parts_of(data).meta.items[0].error
    assert error.startswith("heic images need the package pillow-heif") or "heif image" in error


@pytest.mark.parametrize(("package", "last"), [(object(), "heic"), (None, "jpeg 2000")])
def test_heic_is_listed_where_its_package_is(package: object, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff, "find_spec", {"pillow_heif": package}.get)
    assert sniff.formats().endswith(f" or {last}")


def test_a_kind_that_pillow_does_not_know_is_refused_in_true_words() -> None:
    error = parts_of(still("tiff", pixel_format="ya16le")).meta.items[0].error
    assert error.startswith("the tiff image cannot be decoded: its header is damaged, or it is of a kind that rigflow")
