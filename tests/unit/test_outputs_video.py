"""video: every picture once, at the source's time, in its colours, with the source's sound."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.part import Array, Part
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from tests.unit.outputs_parts import VIDEO, assemble, feed, format_of, make_part

FORMAT = format_of("video", preset="superfast")


def moving(count: int, height: int, width: int, seed: int = 0) -> Array:
    """`[count, height, width]` uint8: a smooth pattern that moves, so that B-frames pay."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 2 * n + seed) / 7) * np.cos((y - n) / 9) for n in range(count)]
    return (128 + 100 * np.stack(waves)).astype(np.uint8)


def planes_of(count: int, height: int = 48, width: int = 64, down: int = 2, across: int = 2) -> dict[str, Array]:
    chroma = (-(-height // down), -(-width // across))
    return {
        "plane0": moving(count, height, width),
        "plane1": moving(count, *chroma, 40),
        "plane2": moving(count, *chroma, 80),
    }


def cut(media: MediaInfo, planes: dict[str, Array], pts: Sequence[int], sizes: Sequence[int]) -> list[Part]:
    """Parts of `sizes` frames."""
    ends = np.cumsum(sizes)
    return [
        make_part(media, {name: plane[end - n : end] for name, plane in planes.items()}, pts[end - n : end], number)
        for number, (n, end) in enumerate(zip(sizes, ends.tolist(), strict=True))
    ]


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def times(frames: Sequence[av.VideoFrame]) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames]


def plane_of(frame: av.VideoFrame, number: int) -> Array:
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]


def psnr(found: Array, expected: Array) -> float:
    return float(10 * np.log10(255**2 / (np.mean((found.astype(float) - expected) ** 2) + 1e-9)))


def test_every_picture_once_at_its_time(tmp_path: Path) -> None:
    planes, sizes = planes_of(45), [24, 1, 0, 2, 18]
    (path,) = assemble(FORMAT, tmp_path / "clip.x", VIDEO, cut(VIDEO, planes, range(45), sizes))
    assert path == tmp_path / "clip.x.mp4"
    frames = decoded(path)
    assert times(frames) == [Fraction(n, 25) for n in range(45)]
    for row, frame in enumerate(frames):
        assert frame.format.name == "yuv420p"
        for number in range(3):
            assert psnr(plane_of(frame, number), planes[f"plane{number}"][row]) > 38


@pytest.mark.parametrize(
    ("base", "origin"),
    [((1, 12800), 0), ((1001, 30000), 3), ((1, 90000), 126000), ((1, 1000), 10**9), ((1, 1000000), 1), ((1, 7), 2)],
)
def test_times_are_the_sources_own(tmp_path: Path, base: tuple[int, int], origin: int) -> None:
    media = VIDEO.model_copy(update={"time_base": base, "origin": origin, "frame_rate": (30, 1)})
    pts = origin + np.cumsum([0, 1, 2, 3, 1, 50, 1, 1, 700, 1]) * max(1, base[1] // 1000)
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(10), pts.tolist(), [4, 6]))
    assert times(decoded(path)) == [int(time) * Fraction(*base) for time in pts]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    base=st.sampled_from([(1, 1000), (1, 12800), (1001, 24000), (1, 90000)]),
    first=st.integers(0, 4) | st.integers(0, 10**6),
    data=st.data(),
)
def test_any_cut_and_any_clock_keep_all_times(
    tmp_path: Path, sizes: list[int], base: tuple[int, int], first: int, data: st.DataObject
) -> None:
    count = sum(sizes)
    steps = data.draw(st.lists(st.integers(1, 3000), min_size=count - 1, max_size=count - 1))
    pts = np.cumsum([first, *steps]).tolist()
    media = VIDEO.model_copy(update={"time_base": base, "origin": pts[0]})
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(count, 16, 32), pts, sizes))
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert all(early.dts < late.dts <= late.pts for early, late in pairwise(packets))
    assert times(decoded(path)) == [time * Fraction(*base) for time in pts]


def test_a_pause_shortly_before_the_end_hides_no_picture(tmp_path: Path) -> None:
    pts = [0, 42, 83, 84, 85]  # key pictures at 83 and 84, with the long steps' dts behind them
    media = VIDEO.model_copy(update={"time_base": (1, 1000)})
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(5), pts, [2, 1, 2]))
    assert times(decoded(path)) == [Fraction(time, 1000) for time in pts]


def test_pictures_of_a_sampled_pipeline_last_as_long_as_its_step(tmp_path: Path) -> None:
    media = VIDEO.model_copy(update={"frame_rate": (1, 2)})
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(3), [0, 50, 100], [1, 2]))
    assert times(decoded(path)) == [0, 2, 4]
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.duration or 0) * (stream.time_base or 1) == 6


@pytest.mark.parametrize("sizes", [[3], [2, 1], [1, 2]])
@pytest.mark.parametrize("end", [101, 107, 300])
def test_the_last_picture_lasts_until_the_end_of_the_media(tmp_path: Path, end: int, sizes: list[int]) -> None:
    media = VIDEO.model_copy(update={"last": 100, "end": end})
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(3), [0, 50, 100], sizes))
    assert times(decoded(path)) == [0, 2, 4]
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.duration or 0) * (stream.time_base or 1) == Fraction(end, 25)


def test_the_last_packet_lasts_as_long_as_its_picture(tmp_path: Path) -> None:
    """Also where it is not the last one that is shown: a longer one would change the rate of the film."""
    among: list[bool] = []
    for count in range(6, 11):
        media = VIDEO.model_copy(update={"last": count - 1, "end": count})
        parts = cut(media, planes_of(count), list(range(count)), [count])
        (path,) = assemble(FORMAT, tmp_path / f"{count}", media, parts)
        with av.open(path) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert {(packet.duration or 0) * packet.time_base for packet in packets} == {Fraction(1, 25)}
            assert (stream.duration or 0) * (stream.time_base or 1) == Fraction(count, 25)
            assert stream.average_rate == 25
        among.append(packets[-1].pts != max(packet.pts or 0 for packet in packets))
    assert any(among)


def test_a_media_that_begins_before_zero_is_moved(tmp_path: Path) -> None:
    media = VIDEO.model_copy(update={"origin": -10})
    assembler = FORMAT.assemble(tmp_path / "a", media)
    feed(FORMAT, assembler, cut(media, planes_of(20), range(-10, 10), [20]))
    assert times(decoded(assembler.close()[0])) == [Fraction(n, 25) for n in range(20)]
    assert assembler.notes == ["begins 0.400 s before 0: moved to begin at 0"]


def test_times_that_do_not_rise_are_moved_by_the_least(tmp_path: Path) -> None:
    assembler = FORMAT.assemble(tmp_path / "a", VIDEO)
    feed(FORMAT, assembler, cut(VIDEO, planes_of(6), [0, 1, 1, 1, 9, 8], [3, 3]))
    assert times(decoded(assembler.close()[0])) == [Fraction(n, 25) for n in [0, 1, 2, 3, 9, 10]]
    assert assembler.notes == ["times do not rise and were moved by the least, first at 0.000 s"]


def test_encoding_a_part_is_a_function_of_the_part() -> None:
    parts = cut(VIDEO, planes_of(30), range(30), [24, 6])
    first, second = ([FORMAT.encode(part).arrays for part in order] for order in (parts, parts[::-1]))
    for arrays, again in zip(first, second[::-1], strict=True):
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], again[name], strict=True)
    np.testing.assert_array_equal(first[0]["header"], first[1]["header"])
    assert first[0]["key"].tolist() == [1] + [0] * 23


def test_options_reach_the_encoder() -> None:
    (part,) = cut(VIDEO, planes_of(12), range(12), [12])
    fine, coarse, slow = (
        format_of("video", **options).encode(part).arrays["data"].tobytes()
        for options in ({}, {"crf": 40}, {"preset": "slow"})
    )
    assert len(coarse) < len(fine) != len(slow)
    assert b"crf=18.0" in fine
    assert b"threads=1 " in fine


@pytest.mark.parametrize(
    ("down", "across", "pix_fmt"), [(2, 2, "yuv420p"), (1, 2, "yuv422p"), (1, 1, "yuv444p"), (0, 0, "yuv420p")]
)
def test_subsampling_is_kept(tmp_path: Path, down: int, across: int, pix_fmt: str) -> None:
    planes = planes_of(5, 48, 64, down, across) if down else {"plane0": moving(5, 48, 64)}
    (path,) = assemble(FORMAT, tmp_path / "a", VIDEO, cut(VIDEO, planes, range(5), [5]))
    for row, frame in enumerate(decoded(path)):
        assert frame.format.name == pix_fmt
        for number in range(3):
            expected = planes[f"plane{number}"][row] if down or not number else np.full((24, 32), 128)
            assert psnr(plane_of(frame, number), expected) > 38


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (1, 1)])
def test_odd_sizes_lose_nothing(tmp_path: Path, height: int, width: int) -> None:
    planes = planes_of(4, height, width)
    if height == 1:
        planes = {"plane0": planes["plane0"]}
    (path,) = assemble(FORMAT, tmp_path / "a", VIDEO, cut(VIDEO, planes, range(4), [4]))
    for row, frame in enumerate(decoded(path)):
        assert (frame.height, frame.width) == (height + height % 2, width + width % 2)
        assert psnr(plane_of(frame, 0)[:height, :width], planes["plane0"][row]) > 35


def test_chroma_of_an_odd_source_twice_its_size_is_cut(tmp_path: Path) -> None:
    small = planes_of(3, 23, 31)
    planes = {name: plane.repeat(2, axis=1).repeat(2, axis=2) for name, plane in small.items()}
    assert planes["plane1"].shape == (3, 24, 32)
    (path,) = assemble(FORMAT, tmp_path / "a", VIDEO, cut(VIDEO, planes, range(3), [3]))
    frame = decoded(path)[0]
    assert (frame.height, frame.width, frame.format.name) == (46, 62, "yuv420p")
    assert psnr(plane_of(frame, 1), planes["plane1"][0, :23, :31]) > 35


def test_colour_and_shape_are_kept(tmp_path: Path) -> None:
    colours = {"color_range": 2, "color_space": 1, "color_primaries": 9, "color_transfer": 13}
    media = VIDEO.model_copy(update={**colours, "sample_aspect": (4, 3)})
    (path,) = assemble(FORMAT, tmp_path / "a", media, cut(media, planes_of(3), range(3), [3]))
    frame = decoded(path)[0]
    assert (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc) == (2, 1, 9, 13)
    with av.open(path) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_rgb_pixels_come_back_in_their_colours(tmp_path: Path) -> None:
    colours = np.array([[250, 20, 20], [20, 220, 40], [30, 40, 230]], dtype=np.uint8)
    for height in (63, 720):
        pixels = np.empty((3, height, 64, 3), dtype=np.uint8)
        pixels[:] = colours[:, None, None]
        (path,) = assemble(FORMAT, tmp_path / f"{height}", VIDEO, [make_part(VIDEO, {"pixels": pixels}, range(3))])
        frames = decoded(path)
        assert {frame.colorspace for frame in frames} == {1 if height == 720 else 6}
        found = np.stack([frame.to_ndarray(format="rgb24")[10, 10] for frame in frames]).astype(int)
        assert abs(found - colours).max() <= 4


def test_frames_that_several_windows_show(tmp_path: Path) -> None:
    planes = planes_of(3)
    index = np.array([[0], [0], [1], [2], [2]], dtype=np.int32)
    (path,) = assemble(FORMAT, tmp_path / "a", VIDEO, [make_part(VIDEO, {**planes, "index": index}, range(5))])
    frames = decoded(path)
    assert len(frames) == 5
    for row, frame in zip(index[:, 0], frames, strict=True):
        assert psnr(plane_of(frame, 0), planes["plane0"][row]) > 38


def test_a_change_of_size_loses_no_frame(tmp_path: Path) -> None:
    parts = cut(VIDEO, planes_of(12), range(12), [6, 6])
    parts.insert(1, make_part(VIDEO, planes_of(4, 32, 96), [6, 7, 8, 9]))
    parts[2] = parts[2].with_arrays(parts[2].arrays, pts=tuple(range(10, 16)))
    assembler = FORMAT.assemble(tmp_path / "a", VIDEO)
    feed(FORMAT, assembler, parts)
    frames = decoded(assembler.close()[0])
    assert [frame.width for frame in frames] == [64] * 6 + [96] * 4 + [64] * 6
    assert assembler.notes == ["the picture changes size, first at 0.240 s"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"score": np.zeros(2)},
            "format video needs `plane0` or `pixels`, the part holds `score`: have a resize stage",
        ),
        ({"plane0": np.zeros((2, 4, 4), np.float32)}, "`plane0` is float32: format video takes uint8"),
        ({"plane0": np.zeros((3, 4, 4), np.uint8)}, "`plane0` has 3 frames for 2 windows: add keeps = .*index"),
        ({"pixels": np.zeros((2, 4, 4, 2), np.uint8)}, r"`pixels` has shape \[2, 4, 4, 2\]: format video takes"),
        (
            {f"plane{n}": np.zeros((2, 8 >> (n > 0), 8), np.uint8) for n in range(3)},
            "planes of 8x8 and 8x4 are no picture of a film: a model must scale all planes alike",
        ),
    ],
)
def test_parts_that_are_no_pictures(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        FORMAT.encode(make_part(VIDEO, arrays, [0, 1]))


def test_a_job_without_a_picture_has_no_file_and_says_so(tmp_path: Path) -> None:
    assembler = FORMAT.assemble(tmp_path / "a", VIDEO)
    feed(FORMAT, assembler, [make_part(VIDEO, {}, [])])
    assert assembler.close() == []
    assert assembler.notes == ["no picture came out of the job: no file"]
    assert list(tmp_path.iterdir()) == []
