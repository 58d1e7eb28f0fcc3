"""Colours, shape and orientation of every kind of video, from the file to what models see and to the file that is made.

Held against arithmetic in NumPy that shares no code with rigflow (tests/coloured.py). `make faults` runs all formats,
ranges, matrices, sizes and orientations with each other.
"""

from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.format import names

from engines.media.colours import plane_format, what_changes
from engines.media.decode import decode_video
from engines.media.split import Splitter
from engines.media.uniform import Uniform, presented
from engines.outputs.format import load_format
from engines.part import Array, Part
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.pipeline import EncodeStage, PipelineSpec
from tests import coloured
from tests.clips import Clip, generated
from tests.coloured import FULL, LIMITED, UNSPECIFIED, Coloured
from tests.plans import converter, decode_plan
from tests.unit.media_passes import JOB, pipeline

LEVELS = 2.0  # of 255, on average over the picture
SWSCALE_LEVELS = 3.5  # its tables for 4:2:0 and 4:2:2 give RGB of even widths some two levels darker than the formula
YCBCR = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
ODD_YCBCR = ["yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuva444p10le", "yuv420p12le", "yuv422p16le", "yuv440p12le"]
FULL_RANGE = ["bgr0", "bgra", "gbrp10le", "gbrap10le", "rgb48le", "gray", "gray10le", "gray16le"]
IN_MOV = [("png", "rgb24"), ("png", "rgba"), ("png", "gray"), ("png", "ya8"), ("png", "rgb48be"), ("qtrle", "argb")]
GBR = [Coloured("gbrp", "magicyuv", "avi"), Coloured("gbrap", "magicyuv", "avi")]

SHORT = [
    *(Coloured(name, "libx264", "mp4", matrix=matrix) for name, matrix in zip(YCBCR, (2, 1, 6, 9, 5, 2), strict=True)),
    Coloured("yuv420p", "libx264", "mp4", size=(720, 64)),
    Coloured("yuv420p", "libx264", "mp4", size=(718, 64)),
    Coloured("yuv420p", "libx264", "mp4", matrix=6, range=FULL, orientation=5),
    Coloured("yuv444p", "libx264", "mp4", matrix=1, range=FULL, size=(95, 127), orientation=7),
    Coloured("yuv420p10le", "libx264", "mp4", matrix=9, range=FULL),
    *(Coloured("yuv420p", "libx264", "mp4", size=(94, 126), orientation=number) for number in range(1, 9)),
    *(Coloured(name) for name in ODD_YCBCR),
    *(Coloured(name, size=(95, 127)) for name in FULL_RANGE),
    *(Coloured(name, codec, "mov", orientation=2 + i % 7) for i, (codec, name) in enumerate(IN_MOV)),
    *GBR,
    Coloured("bgr0", size=(720, 80)),
    Coloured("yuv411p", matrix=1, range=FULL, size=(95, 127)),
    Coloured("yuv440p", matrix=5, range=LIMITED, size=(95, 127)),
    Coloured("yuvj420p", "mjpeg", "mov", orientation=4),
    Coloured("yuvj444p", "mjpeg", "mov", orientation=6),
]
_SIZES = [(96, 128), (95, 127), (720, 80), (33, 17)]
LONG = [
    *(
        Coloured(name, "libx264", "mp4", size, matrix, color_range, orientation)
        for name, size, matrix, color_range, orientation in product(
            YCBCR, [(96, 128), (720, 80)], (UNSPECIFIED, 1, 4, 5, 6, 7, 9), (0, LIMITED, FULL), range(1, 9)
        )
    ),
    *(
        Coloured(name, size=size, matrix=matrix, range=color_range)
        for name, size, matrix, color_range in product(
            [*YCBCR, *ODD_YCBCR], _SIZES, (UNSPECIFIED, 1, 5, 6, 9), (0, LIMITED, FULL)
        )
    ),
    *(Coloured(name, size=size) for name, size in product(FULL_RANGE, _SIZES)),
    *(Coloured(f, c, "mov", size, orientation=o) for (c, f), size, o in product(IN_MOV, _SIZES, range(1, 9))),
]


def parts_of(path: Path, spec: PipelineSpec, segment_s: float = 100) -> list[Part]:
    """What decode and preprocess make of a file."""
    parts: list[Part] = []
    with Splitter(path, spec.grid, segment_s) as splitter:
        for number, segment_data in enumerate(splitter.segments()):
            key = Key(job=JOB, segment=number, final=segment_data.final)
            segment = segment_data.segment(key)
            parts += decode_video(segment, segment_data.buffers, decode_plan(spec), converter(spec).convert)
    return parts


def planes_in(part: Part) -> list[Array]:
    """The planes of a part's first picture."""
    return [part.arrays[name][0] for name in sorted(part.arrays) if name.startswith("plane")]


def film_of(parts: list[Part], target: Path, media: MediaInfo | None = None) -> Path:
    """The mp4 that rigflow makes of parts, without loss; a collector knows the `media` of the source."""
    made = load_format(EncodeStage(kind="encode", format="video", options={"crf": 0.0, "preset": "ultrafast"}))
    assembler = made.assemble(target, media or parts[0].meta.media)
    for part in parts:
        encoded = made.encode(part)
        assembler.add(part.meta, encoded.arrays, encoded.facts)
    [path] = assembler.close()
    return path


def shown(path: Path) -> tuple[Array, av.VideoFrame]:
    """The first picture of a film as a player shows it, in NumPy's arithmetic; and its frame."""
    with av.open(path) as container:
        frame = next(container.decode(video=0))
    lines = [np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1) for plane in frame.planes]
    planes = [rows[:, : part.width] for rows, part in zip(lines, frame.format.components, strict=True)]
    matrix = coloured.custom(int(frame.colorspace), frame.height)
    full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
    return coloured.rgb_of_planes(planes, matrix, full), frame


def check(clip: Coloured, folder: Path) -> None:
    """That pixels, planes and the film that is made of them show what the clip shows."""
    path, wanted = coloured.make(folder, clip), coloured.expected(clip).astype(float)
    [part] = parts_of(path, pipeline(size=list(wanted.shape[:2])))
    pixels = np.abs(part.arrays["pixels"][0] - wanted).mean(axis=(0, 1)).max()
    [part] = parts_of(path, pipeline())
    media, planes = part.meta.media, planes_in(part)
    assert planes[0].shape == wanted.shape[:2] == (media.height, media.width)
    full = media.color_range == FULL
    flat = np.abs(coloured.rgb_of_planes(planes, media.color_space, full) - wanted).mean(axis=(0, 1)).max()
    picture, frame = shown(film_of([part], folder / "film"))
    height, width = wanted.shape[:2]
    film = np.abs(picture[:height, :width] - wanted).mean(axis=(0, 1)).max()
    assert frame.colorspace in coloured.WEIGHTS, "the film names its matrix"
    assert pixels <= SWSCALE_LEVELS, f"pixels {pixels:.2f}"
    assert max(flat, film) <= LEVELS, f"planes {flat:.2f}, film {film:.2f}"
    path.unlink()


@pytest.mark.parametrize("clip", SHORT, ids=lambda clip: clip.name)
def test_colours_and_orientation_are_those_of_the_file(tmp_path: Path, clip: Coloured) -> None:
    check(clip, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_formats_ranges_matrices_sizes_and_orientations(tmp_path: Path) -> None:
    wrong: dict[str, str] = {}
    for clip in LONG:
        try:
            check(clip, tmp_path)
        except AssertionError as error:
            wrong[clip.name] = str(error).splitlines()[0]
    assert not wrong, "\n".join(map(" ".join, wrong.items()))
    assert len(LONG) > 3000


def test_every_pixel_format_that_has_eight_bits_keeps_its_colours() -> None:
    tried = 0
    for name in sorted(names):
        bits = {component.bits for component in av.VideoFormat(name).components}
        if not bits or min(bits) < 8 or max(bits) > 16:
            continue
        clip = Coloured(name)
        try:
            frames = [coloured.frame_of(clip) for _ in range(2)]
        except (av.error.FFmpegError, ValueError):
            continue  # of a GPU, or swscale does not write it
        media = MediaInfo(kind="video", width=clip.size[1], height=clip.size[0], pixel_format=name)
        wanted, tried = coloured.expected(clip).astype(float), tried + 1
        made = [arrays_of(frame, media, spec) for frame, spec in zip(frames, both(clip.size), strict=True)]
        shown = presented(media, decode_plan(pipeline()))
        planes = [made[0][plane] for plane in sorted(made[0])]
        picture = coloured.rgb_of_planes(planes, shown.color_space, shown.color_range == FULL)
        assert np.abs(picture - wanted).mean(axis=(0, 1)).max() <= LEVELS, name
        assert np.abs(made[1]["pixels"] - wanted).mean(axis=(0, 1)).max() <= SWSCALE_LEVELS, name
    assert tried > 150


@pytest.mark.parametrize("size", [(67, 75), (67, 96), (68, 75), (3, 5)])
def test_an_odd_size_leaves_no_pixel_unwritten_in_any_format(size: tuple[int, int]) -> None:
    """One colour stays one colour, to the last line and column."""
    tried = 0
    for name in sorted(names):
        bits = {component.bits for component in av.VideoFormat(name).components}
        if not bits or min(bits) < 8 or max(bits) > 16:
            continue
        plain = av.VideoFrame.from_ndarray(np.full((*size, 3), (200, 90, 40), np.uint8), "rgb24")
        try:
            frames = [plain.reformat(format=name, threads=1) for _ in range(2)]
        except (av.error.FFmpegError, ValueError):
            continue
        media, tried = MediaInfo(kind="video", width=size[1], height=size[0], pixel_format=name), tried + 1
        for frame, spec in zip(frames, both(size), strict=True):
            for array in arrays_of(frame, media, spec).values():
                assert np.abs(array.astype(int) - np.median(array, axis=(0, 1))).max() <= 4, name
    assert tried > 150


@pytest.mark.parametrize(
    "name", [f"{order}5{g}5{end}" for order in ("rgb", "bgr") for g in "56" for end in ("le", "be")]
)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_old_sixteen_bit_formats_keep_their_colours_and_white_stays_white(name: str, scaled: bool) -> None:
    clip = Coloured(name)
    media = MediaInfo(kind="video", width=clip.size[1], height=clip.size[0], pixel_format=name)
    size = (clip.size[0] // 2, clip.size[1] // 2) if scaled else clip.size
    planes, pixels = both(size)
    picture = arrays_of(coloured.frame_of(clip), media, pixels)["pixels"]
    wanted = coloured.expected(clip).astype(float)[:: clip.size[0] // size[0], :: clip.size[1] // size[1]]
    assert np.abs(picture - wanted).mean() < 5, "a step is 8 levels"
    white = av.VideoFrame.from_ndarray(np.full((*clip.size, 3), 255, np.uint8), "rgb24").reformat(format=name)
    assert arrays_of(white, media, pixels)["pixels"].min() == 255
    assert arrays_of(white, media, planes)["plane0"].min() == 235


def both(size: tuple[int, int]) -> tuple[PipelineSpec, PipelineSpec]:
    """Pipelines that see planes, and pixels of that size."""
    return pipeline(), pipeline(size=list(size))


def arrays_of(frame: av.VideoFrame, media: MediaInfo, spec: PipelineSpec) -> dict[str, Array]:
    return converter(spec).convert(Uniform(media, decode_plan(spec), {})(frame))


def with_decode(spec: PipelineSpec, **options: Any) -> PipelineSpec:
    """The pipeline with options of its decode stage."""
    return spec.model_copy(update={"stage": (spec.decode.model_copy(update={"options": options}), *spec.stage[1:])})


def test_what_is_left_out_or_changed_is_noted(tmp_path: Path) -> None:
    half = "colours have half the resolution"
    for clip, notes in (
        (Coloured("yuv420p", "libx264", "mp4"), ()),
        (Coloured("yuv440p"), (f"pixels are converted from yuv440p to yuv420p: {half}",)),
        (
            Coloured("bgra"),
            (f"pixels are converted from bgra to yuv420p: RGB becomes luma and colour difference, {half}",),
        ),
    ):
        assert parts_of(coloured.make(tmp_path, clip), pipeline())[-1].meta.notes == notes
    pixels = parts_of(coloured.make(tmp_path, Coloured("bgra")), pipeline(size=[9, 9]))[-1].meta.notes
    assert pixels == ()


@pytest.mark.parametrize("layout", ["bgra", "yuva420p", "gbrap10le"])
def test_transparency_is_noted_where_a_pixel_is_transparent(layout: str, tmp_path: Path) -> None:
    """The first three frames are opaque, and so is the film that has only these."""
    picture = np.full((48, 64, 4), 255, np.uint8)
    for shown, notes in ((3, ()), (4, ("transparency is left out",))):
        path = tmp_path / f"{shown}.mkv"
        with av.open(path, "w") as out:
            stream = out.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, layout
            for number in range(shown):
                picture[7, 9, 3] = 255 if number < 3 else 100
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=layout)))
            out.mux(stream.encode(None))
        found = {note for part in parts_of(path, pipeline(size=[9, 9])) for note in part.meta.notes}
        assert {note for note in found if "transparen" in note} == set(notes)


@pytest.mark.parametrize(
    ("fit", "orientation", "aspect"),
    [
        ("stretch", 1, Fraction(128 * 4, 96 * 3)),
        ("stretch", 6, Fraction(96 * 3, 128 * 4)),
        ("crop", 1, Fraction(4, 3)),
        ("letterbox", 5, Fraction(3, 4)),
    ],
)
def test_a_scaled_picture_is_shown_in_the_shape_of_its_source(
    tmp_path: Path, fit: str, orientation: int, aspect: Fraction
) -> None:
    clip = Coloured("yuv420p", "libx264", "mp4", orientation=orientation, aspect=(4, 3))
    path, spec = coloured.make(tmp_path, clip), pipeline(size=[64, 64], fit=fit)
    with Splitter(path, spec.grid, 100) as splitter:
        media = splitter.media
    with av.open(film_of(parts_of(path, spec), tmp_path / "film", media)) as film:
        assert film.streams.video[0].sample_aspect_ratio == aspect


@pytest.mark.parametrize(("fps", "stride", "lasts"), [(0.5, 1, 2), (5, 1, Fraction(1, 5)), (10, 5, Fraction(1, 2))])
def test_each_picture_lasts_until_the_next_one(tmp_path: Path, fps: float, stride: int, lasts: Fraction) -> None:
    parts = parts_of(generated(Clip(frames=150)), pipeline(fps=fps, stride=stride))
    with av.open(film_of(parts, tmp_path / "film")) as film:
        stream = film.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == len(list(film.decode(stream))) * lasts


def combed(folder: Path) -> Path:
    """Film of two fields a frame: the lower one, which comes first, light; the upper one dark."""
    path = folder / "combed.mp4"
    with av.open(str(path), "w") as out:
        options = {"qp": "0", "preset": "ultrafast", "x264-params": "bff=1:keyint=4:scenecut=0"}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for number in range(12):
            picture = np.full((96, 96), 128, np.uint8)
            picture[:64:2], picture[1:64:2] = 40, 200 - number
            frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_fields_are_distinguished_where_the_pipeline_wants_it(tmp_path: Path) -> None:
    path, plain, apart = combed(tmp_path), pipeline(), with_decode(pipeline(), deinterlace=True)
    woven = parts_of(path, plain)
    assert "it is interlaced: fields stay woven" in woven[-1].meta.notes[0]
    assert np.array_equal(np.unique(woven[0].arrays["plane0"][3]), [40, 197])
    whole, cut = parts_of(path, apart), parts_of(path, apart, segment_s=0.01)
    assert whole[-1].meta.notes == ("it is interlaced: deinterlaced",)
    pictures = [picture for part in cut for picture in part.arrays["plane0"]]
    assert len(cut) > len(whole)
    assert np.array_equal(pictures, [picture for part in whole for picture in part.arrays["plane0"]])
    assert [np.unique(picture).tolist() for picture in pictures] == [[200 - number] for number in range(12)]


def hdr(folder: Path, transfer: int, signals: list[float]) -> Path:
    """Bars of gray at `signals`, of 0 to 1, in BT.2020 with that transfer."""
    path = folder / "hdr.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 16 * len(signals), "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, LIMITED
        frame = av.VideoFrame(stream.width, 32, "yuv420p10le")
        bars = np.repeat([round(64 + 876 * signal) for signal in signals], 16)
        for plane, values in zip(frame.planes, (bars, bars * 0 + 512, bars * 0 + 512), strict=True):
            lines = np.zeros((plane.height, plane.line_size // 2), "<u2")
            lines[:, : plane.width] = values[: plane.width]
            plane.update(lines.tobytes())
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, transfer, LIMITED
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("transfer", "name", "white"), [(16, "PQ", 0.58), pytest.param(18, "HLG", 0.75, marks=pytest.mark.slow)]
)
def test_hdr_is_mapped_to_bt709_where_the_pipeline_wants_it(
    tmp_path: Path, transfer: int, name: str, white: float
) -> None:
    """`white` is the signal of 203 cd/m2, that of paper, by ITU-R BT.2408."""
    path = hdr(tmp_path, transfer, [0, 0.2, 0.4, white, 0.85, 1])
    [kept] = parts_of(path, pipeline())
    assert any(f"HDR ({name})" in note for note in kept.meta.notes)
    assert (kept.meta.media.color_space, kept.meta.media.color_transfer) == (9, transfer)
    mapping = with_decode(pipeline(), tonemap=True)
    [mapped] = parts_of(path, mapping)
    assert f"{name} was tone-mapped to BT.709" in mapped.meta.notes
    luma, *chroma = ([int(value) for value in plane[16 % len(plane), 8::16]] for plane in planes_in(mapped))
    assert luma[0] == 16
    assert luma == sorted(set(luma)), "brighter stays brighter"
    assert 140 < luma[3] < 225 <= luma[-1] + 15
    assert all(abs(value - 128) <= 1 for values in chroma for value in values), "gray stays gray"
    frame = shown(film_of([mapped], tmp_path / "film"))[1]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, LIMITED)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yuv422p10le", "10 bits become 8"),
        ("yuv411p", "colours are scaled to another resolution"),
        ("pal8", "RGB becomes luma and colour difference, colours have half the resolution"),
        ("gray16le", "16 bits become 8"),
        ("yuva420p", ""),
        ("nv12", ""),
    ],
)
def test_a_conversion_is_described_by_what_it_does_to_pictures(name: str, words: str) -> None:
    assert what_changes(name, plane_format(name)) == words


@pytest.mark.parametrize("name", ["p010le", "p210le", "p410le", "p012le"])
@pytest.mark.parametrize("size", [(22, 33), (21, 34), (20, 35), (48, 64)])
def test_gray_of_samples_in_the_upper_bits_is_their_luma_in_every_column(name: str, size: tuple[int, int]) -> None:
    height, width = size
    luma = np.random.default_rng(0).integers(0, 256, size).astype(np.uint16)
    frame = av.VideoFrame(width, height, name)
    for number, plane in enumerate(frame.planes):
        samples = np.full((plane.height, plane.line_size // 2), 1 << 15, np.uint16)
        if number == 0:
            samples[:, :width] = luma << 8
        plane.update(samples.tobytes())
    media = MediaInfo(kind="video", width=width, height=height, pixel_format=name, color_range=FULL)
    spec = pipeline(size="source", layout="gray")
    frame.color_range = FULL
    gray = converter(spec).convert(Uniform(media, decode_plan(spec), {})(frame))["pixels"]
    np.testing.assert_allclose(gray.astype(int), luma, atol=1)
