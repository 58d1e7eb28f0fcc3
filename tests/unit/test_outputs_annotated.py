"""annotated: the same pixels as Pillow draws, on YCbCr planes and on images, and no others."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from engines.encoding import Colour, Encoded, Pictures, VideoOptions
from engines.outputs.draw import Canvas, channel_paint, class_colour, ycbcr_paint
from engines.outputs.format import load_format, sound_of
from engines.outputs.preview import Answer, drawn
from engines.outputs.surfaces import HostSurface
from engines.outputs.text import font
from engines.part import Array, Tick, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import Item, MediaInfo
from schemas.pipeline import EncodeStage
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

HEIGHT, WIDTH = 240, 320
LABELS = {"classes": ("person", "Größe 车")}
MEDIA = VIDEO.model_copy(update={"width": WIDTH, "height": HEIGHT, "color_space": 6, "color_range": 1})
RNG = np.random.default_rng(4)


class Capture:
    """Takes the pictures as they would be encoded."""

    on_gpu = False
    pictures: Pictures

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        self.pictures = pictures
        return Encoded({})


def drawn_planes(arrays: dict[str, Any], media: MediaInfo = MEDIA, count: int = 1, **options: Any) -> list[Array]:
    capture = Capture()
    stage = EncodeStage(kind="encode", format="annotated", options=options)
    load_format(stage, capture, LABELS).encode(make_part(media, arrays, range(count)))
    return [np.asarray(plane) for plane in capture.pictures.planes]


def drawn_image(pixels: Array, arrays: dict[str, Any], **options: Any) -> Array:
    part = make_part(IMAGES, {"pixels": pixels[None], **arrays}, [0], items=[Item(name="a.png")])
    stage = EncodeStage(kind="encode", format="annotated", options=options)
    data = load_format(stage, labels=LABELS).encode(part).arrays["data"]
    return np.asarray(Image.open(BytesIO(data.tobytes())))


def boxes_of(*boxes: Sequence[float], classes: Sequence[int] = (), scores: Sequence[float] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {"boxes": Ragged.of([np.array(boxes, np.float32).reshape(-1, 4)])}
    if classes:
        found["classes"] = Ragged.of([np.array(classes, np.int32)])
    if scores:
        found["scores"] = Ragged.of([np.array(scores, np.float32)])
    return found


def pillow(pixels: Array, box: tuple[int, int, int, int], colour: tuple[int, ...], text: str, step: int = 1) -> Array:
    """A box with its label, drawn on RGB by Pillow alone; the label's sides are multiples of `step`."""
    left, top, right, bottom = box
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
    if text:
        face = ImageFont.truetype(font(12).path, 12, layout_engine=ImageFont.Layout.BASIC)
        height, width = (-(-size // step) * step for size in (sum(face.getmetrics()), round(face.getlength(text))))
        pad, start = round(height // 6 / step) * step, top - height
        draw.rectangle((left, start, left + width + 2 * pad - 1, top - 1), colour)
        black = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
        draw.text((left + pad, start), text, (0, 0, 0) if black else (255, 255, 255), face)
    return np.asarray(image)


def to_rgb(planes: Sequence[Array], space: int, full: bool) -> Array:
    """`[H, W, 3]` float, by the formulas of BT.601 and BT.709; chroma is repeated."""
    red, blue = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}[space]
    height, width = planes[0].shape
    luma, cb, cr = (
        plane.astype(float)
        .repeat(-(-height // len(plane)), 0)[:height]
        .repeat(-(-width // plane.shape[1]), 1)[:, :width]
        for plane in planes
    )
    scale, chroma, black = (255, 255, 0) if full else (219, 224, 16)
    luma, cb, cr = (luma - black) / scale, (cb - 128) / chroma, (cr - 128) / chroma
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], axis=-1) * 255


def test_on_an_image_the_pixels_are_those_of_pillow() -> None:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, label in ((0, "person"), (1, "Größe 车"), (5, "5")):
        arrays = boxes_of([30, 40, 200, 180], classes=[number], scores=[0.876])
        expected = pillow(pixels, (30, 40, 200, 180), class_colour(number), f"{label} 0.88")
        found = drawn_image(pixels, arrays)
        assert abs(found.astype(int) - expected).max() <= 1  # Pillow rounds a blend in another way
        np.testing.assert_array_equal((found != pixels).any(-1), (expected != pixels).any(-1))


def test_labels_of_boxes_with_one_corner_stand_apart() -> None:
    """Above, inside, below, inside below, in the order of scores. A fifth label is behind the first."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    arrays = boxes_of(*[[40, 60, 200, 180]] * 5, classes=range(5), scores=[0.9, 0.8, 0.7, 0.6, 0.5])
    picture, step = drawn_image(pixels, arrays, labels=False), sum(font(12).getmetrics())
    for number, top in enumerate((60 - step, 60, 180, 180 - step)):
        colour = class_colour(number)
        label = pillow(pixels, (40, 60, 200, 180), colour, f"0.{9 - number}0")[60 - step : 60, 40:60]
        assert abs(picture[top : top + step, 40:60].astype(int) - label).max() <= 1
    alone = drawn_image(pixels, boxes_of([40, 2, 200, 180], classes=[0]), scores=False)
    assert (alone[2 : 2 + step, 44:60] == class_colour(0)).all(-1).any()  # no space above


def test_labels_and_scores_are_left_out_where_the_options_say_so() -> None:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    arrays = boxes_of([30, 40, 200, 180], classes=[0], scores=[0.5])
    for options, text in (
        ({"labels": False}, "0.50"),
        ({"scores": False}, "person"),
        ({"labels": False, "scores": False}, ""),
    ):
        expected = pillow(pixels, (30, 40, 200, 180), class_colour(0), text)
        assert abs(drawn_image(pixels, arrays, **options).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("space", "full"), [(1, False), (6, False), (1, True), (6, True)])
@pytest.mark.parametrize(("down", "across"), [(1, 1), (1, 2), (2, 2)])
def test_on_planes_only_those_samples_change_whose_pixels_pillow_changes(
    space: int, full: bool, down: int, across: int
) -> None:
    height, width = HEIGHT + down - 1, WIDTH + across - 1  # odd where chroma is halved
    sizes = [(height, width), *[(-(-height // down), -(-width // across))] * 2]
    before = [RNG.integers(60, 200, (1, *size), dtype=np.uint8) for size in sizes]
    for plane in before:
        plane.flags.writeable = False  # as those that come from a message
    colours = {"color_space": space, "color_range": 2 if full else 1, "width": width, "height": height}
    arrays = boxes_of([31, 41, 200, 181], classes=[1], scores=[0.5])
    after = drawn_planes(
        {f"plane{n}": plane for n, plane in enumerate(before)} | arrays, MEDIA.model_copy(update=colours)
    )
    grey = np.full((height, width, 3), 128, np.uint8)
    step = max(down, across)
    box = (31, 41, 200, 181) if step == 1 else (32, 40, 200, 180)
    reference = pillow(grey, box, class_colour(1), "Größe 车 0.50", step)
    changed = (reference != grey).any(-1)
    for was, now, (rows, columns) in zip(before, after, sizes, strict=True):
        blocks = np.zeros((rows, -(-height // rows), columns, -(-width // columns)), bool)
        ys, xs = np.nonzero(changed)
        blocks[ys // blocks.shape[1], ys % blocks.shape[1], xs // blocks.shape[3], xs % blocks.shape[3]] = True
        touched = blocks.any(axis=(1, 3))
        np.testing.assert_array_equal(now[0][~touched], was[0][~touched])
        assert (now[0] != was[0])[touched].mean() > 0.9
    # where one colour covers all pixels of a sample, it is that colour
    rgb = to_rgb([plane[0] for plane in after], space, full)
    solid = (reference == class_colour(1)).all(-1)
    blocks = np.zeros((sizes[1][0] * down, sizes[1][1] * across), bool)
    blocks[:height, :width] = solid
    whole = blocks.reshape(sizes[1][0], down, sizes[1][1], across).all(axis=(1, 3))
    inner = whole.repeat(down, 0).repeat(across, 1)[:height, :width]
    assert inner.sum() > 300
    assert abs(rgb[inner] - class_colour(1)).max() < 4


@pytest.mark.parametrize(("space", "named"), [(1, Colorspace.ITU709), (6, Colorspace.ITU601)])
@pytest.mark.parametrize(("color_range", "named_range"), [(1, ColorRange.MPEG), (2, ColorRange.JPEG)])
def test_colours_are_those_that_swscale_makes(
    space: int, named: Colorspace, color_range: int, named_range: ColorRange
) -> None:
    paint = ycbcr_paint(Colour(color_range, space, 2, 2), 720)
    for rgb in [class_colour(number) for number in range(20)] + [(0, 0, 0), (255, 255, 255)]:
        frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), rgb, np.uint8), format="rgb24")
        yuv = frame.reformat(format="yuv444p", dst_colorspace=named, dst_color_range=named_range)
        swscale = [np.frombuffer(plane, np.uint8)[0] for plane in yuv.planes]
        assert max(abs(int(mine) - int(other)) for mine, other in zip(paint(rgb), swscale, strict=True)) <= 2


def test_a_mask_is_mixed_into_its_box_and_nowhere_else() -> None:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, :, 4:] = 1
    arrays = {**boxes_of([40, 40, 120, 120]), "masks": Ragged.of([mask])}
    found = drawn_image(pixels, arrays).astype(float)
    inside = (slice(42, 118), slice(84, 118))  # right half, without the border
    expected = pixels[inside] * (1 - 110 / 255) + np.array(class_colour(0)) * (110 / 255)
    assert abs(found[inside] - expected).max() <= 1
    left = (slice(42, 118), slice(42, 76))
    np.testing.assert_array_equal(found[left], pixels[left])


def test_classes_of_pixels_are_tinted_but_for_the_background() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    mask = np.zeros((1, HEIGHT // 4, WIDTH // 4), np.uint8)
    mask[0, :30, :40] = 2
    found = drawn_image(pixels, {"mask": mask}).astype(float)
    expected = 100 * (1 - 110 / 255) + np.array(class_colour(2)) * (110 / 255)
    assert abs(found[:120, :160] - expected).max() <= 1
    assert (found[120:] == 100).all()
    assert (found[:, 160:] == 100).all()


def test_coordinates_of_the_source_are_scaled_to_the_picture() -> None:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    arrays = {**boxes_of([60, 160, 400, 720]), "source_size": np.array([[4 * HEIGHT, 2 * WIDTH]], np.int32)}
    expected = pillow(pixels, (30, 40, 200, 180), class_colour(0), "")
    np.testing.assert_array_equal(drawn_image(pixels, arrays), expected)


def test_turned_boxes_and_keypoints() -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    corners = np.array([[[100, 50], [200, 100], [150, 200], [50, 150]]], np.float32)
    found = drawn_image(pixels, {**boxes_of([50, 50, 200, 200]), "corners": Ragged.of([corners])})
    ys, xs = np.nonzero(found.any(-1))
    for (x1, y1), (x2, y2) in zip(corners[0], np.roll(corners[0], -1, 0), strict=True):
        for share in np.linspace(0.1, 0.9, 9):  # each point of the outline is there
            x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
            assert np.hypot(xs - x, ys - y).min() < 1.5
    assert not found[125, 125].any()
    keypoints = np.array([[[30, 30, 0.9], [300, 200, 0.1]]], np.float32)
    found = drawn_image(pixels, {**boxes_of([0, 0, 4, 4]), "keypoints": Ragged.of([keypoints])})
    assert found[30, 30].tolist() == [255, 255, 255]
    assert not found[200, 300].any()


def test_tags_of_a_picture_stand_in_its_corner() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    arrays = {"tags": Ragged.of([np.array([1, 0], np.int32)]), "scores": Ragged.of([np.array([0.9, 0.8], np.float32)])}
    part = make_part(IMAGES, {"pixels": pixels[None], **arrays}, [0], items=[Item(name="a.png")])
    data = format_of("annotated", {"tags": ("kurz", "Größe 车")}).encode(part).arrays["data"]
    found = np.asarray(Image.open(BytesIO(data.tobytes())))
    height = sum(font(12).getmetrics())
    lines = [round(font(12).getlength(text)) for text in ("Größe 车 0.90", "kurz 0.80")]
    changed = (found != 200).any(-1)
    for number, width in enumerate(lines):
        line = changed[height // 4 + number * height : height // 4 + (number + 1) * height]
        assert line.all(axis=0).sum() >= width * 0.8
        assert not line[:, width + height :].any()
    assert not changed[3 * height :].any()


def test_model_add_draws_its_trial_alike() -> None:
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    arrays = boxes_of([30, 40, 200, 180], classes=[1], scores=[0.5])
    answer = Answer(pixels, arrays, LABELS, frozenset(arrays))
    np.testing.assert_array_equal(np.asarray(drawn(answer)), drawn_image(pixels, arrays))
    assert drawn(Answer(pixels, {"embedding": np.zeros((1, 4))}, {}, frozenset(["embedding"]))) is None


def test_a_video_keeps_its_times_and_every_frame_has_its_own_boxes(tmp_path: Path) -> None:
    grey = np.full((6, 48, 64), 90, np.uint8)
    planes = {"plane0": grey, "plane1": grey[:, ::2, ::2], "plane2": grey[:, ::2, ::2]}
    boxes = Ragged.of([np.array([[8 * n, 8, 8 * n + 16, 40]] * (n % 2), np.float32).reshape(-1, 4) for n in range(6)])
    media = VIDEO.model_copy(update={"color_range": 1, "color_space": 6})
    parts = []
    for number, rows in enumerate((slice(0, 3), slice(3, 6))):
        pictures = {name: plane[rows] for name, plane in planes.items()}
        found = {"boxes": boxes.rows(rows.start, rows.stop)}
        parts.append(make_part(media, pictures | found, range(rows.start, rows.stop), number))
    (path,) = assemble(format_of("annotated", crf=10), tmp_path / "a", media, parts)
    assert path == tmp_path / "a.mp4"
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [number / 25 for number in range(6)]
    for number, frame in enumerate(frames):
        luma = np.frombuffer(frame.planes[0], np.uint8).reshape(48, -1)[:, :64].astype(int)
        columns = np.nonzero((abs(luma - 90) > 12).sum(axis=0) > 20)[0]
        assert columns.tolist() == (
            [8 * number, 8 * number + 1, 8 * number + 14, 8 * number + 15] if number % 2 else []
        )


coordinate = st.floats(width=32) | st.floats(-400, 700, width=32)


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(*[coordinate] * 4),
    points=st.lists(st.tuples(coordinate, coordinate, st.floats(0, 1, width=32)), min_size=17, max_size=17),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_nothing_that_a_model_gives_breaks_a_picture(
    box: tuple[float, ...], points: list[tuple[float, ...]], size: tuple[int, int]
) -> None:
    height, width = size
    planes = {
        "plane0": np.zeros((1, height, width), np.uint8),
        "plane1": np.zeros((1, -(-height // 2), -(-width // 2)), np.uint8),
        "plane2": np.zeros((1, -(-height // 2), -(-width // 2)), np.uint8),
    }
    arrays = {
        **boxes_of(box, classes=[-3], scores=[np.nan]),
        "keypoints": Ragged.of([np.array([points], np.float32)]),
        "corners": Ragged.of([np.array([points[:4]], np.float32)[..., :2]]),
        "masks": Ragged.of([np.ones((1, 3, 3), np.uint8)]),
    }
    media = MEDIA.model_copy(update={"width": width, "height": height})
    with np.errstate(over="ignore"):
        after = drawn_planes(planes | arrays, media)
    assert [plane.shape for plane in after] == [plane.shape for plane in planes.values()]


def test_grey_and_transparent_pictures() -> None:
    for channels in (1, 2, 3, 4):
        planes = [np.zeros((20, 20), np.uint8) for _ in range(channels)]
        Canvas(HostSurface(planes), channel_paint(channels)).rectangle(0, 0, 10, 10, (255, 0, 0))
        expected = {1: (76,), 2: (76, 255), 3: (255, 0, 0), 4: (255, 0, 0, 255)}[channels]
        assert tuple(plane[5, 5] for plane in planes) == expected
        assert not any(plane[10:].any() for plane in planes)


def test_the_last_sample_of_an_odd_picture_takes_all_of_a_colour() -> None:
    planes = [np.zeros(size, np.uint8) for size in ((5, 7), (3, 4), (3, 4))]
    Canvas(HostSurface(planes), lambda _: (10, 20, 30)).rectangle(0, 0, 5, 7, (0, 0, 0))
    assert [set(plane.flat) for plane in planes] == [{10}, {20}, {30}]


def test_what_a_plan_cannot_give_is_refused_at_once() -> None:
    def planned(**shapes: tuple[int | str, ...]) -> dict[str, Tensor]:
        return {name: Tensor("uint8", shape) for name, shape in shapes.items()}

    format_ = format_of("annotated")
    pixels = ("F", 32, 32, 3)
    format_.check(planned(pixels=pixels, boxes=("W", "count", 4)), ["video", "image"])
    with pytest.raises(PipelineError, match="format annotated needs `plane0` or `pixels`, the part holds `boxes`"):
        format_.check(planned(boxes=("W", "count", 4)), ["video"])
    with pytest.raises(PipelineError, match="needs one of `boxes`, `mask`, `classes`, `tags` to draw"):
        format_.check(planned(pixels=pixels), ["video"])
    with pytest.raises(PipelineError, match=r"`mask` is uint8 \[W, 3, 8, 8\]: format annotated takes"):
        format_.check(planned(pixels=pixels, mask=("W", 3, 8, 8)), ["video"])
    with pytest.raises(PipelineError, match="`boxes` is uint8"):
        format_.check(planned(pixels=pixels, boxes=("W", "count", 5)), ["video"])


def test_the_sound_is_the_sources() -> None:
    for name in ("annotated", "image", "video"):
        assert sound_of(EncodeStage(kind="encode", format=name)) == "copy"
    assert sound_of(EncodeStage(kind="encode", format="annotated", options={"sound": "aac"})) == "aac"
    assert sound_of(EncodeStage(kind="encode", format="detections")) is None
