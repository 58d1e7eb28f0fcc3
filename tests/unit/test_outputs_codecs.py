"""Films in H.264, HEVC and AV1, of 8 and 10 bits: parts joined to one file with every picture at its time."""

import io
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydantic import ValidationError

from engines.encoding import VideoOptions
from engines.media.head import Tags, write_head
from engines.part import Array
from schemas.errors import MediaError, PipelineError
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.segments import Fragment
from tests.unit.outputs_parts import JOB, assemble, format_of, make_part
from tests.unit.test_outputs_video import cut, moving, planes_of, psnr, times

HEIGHT, WIDTH = 82, 98
FILM = MediaInfo(kind="video", name="clip.mp4", width=WIDTH, height=HEIGHT, time_base=(1, 1000), frame_rate=(25, 1))
KINDS = [("h264", 8), ("h264", 10), ("hevc", 8), ("hevc", 10), ("av1", 8), ("av1", 10)]
NAMES = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d"}


def luma(frame: av.VideoFrame, bits: int) -> Array:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(plane.height, -1)[:, : plane.width]
    return rows if bits == 8 else rows / 4


@pytest.mark.parametrize(("codec", "bits"), KINDS)
def test_parts_of_each_codec_become_one_film_with_its_times(tmp_path: Path, codec: str, bits: int) -> None:
    count, sizes = 27, [12, 1, 2, 12]
    pts = [40 * n + (7 if n % 3 == 1 else 0) + (900 if n > 13 else 0) for n in range(count)]  # VFR, with a pause
    media = FILM.model_copy(update={"sample_aspect": (4, 3)})
    planes = planes_of(count, HEIGHT, WIDTH)
    format_ = format_of("video", codec=codec, bits=bits, crf=12)
    (path,) = assemble(format_, tmp_path / "clip", media, cut(media, planes, pts, sizes))
    with av.open(path) as opened:
        stream = opened.streams.video[0]
        assert stream.codec_context.name == NAMES[codec]
        assert stream.codec_context.codec_tag == {"h264": "avc1", "hevc": "hvc1", "av1": "av01"}[codec]
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        frames = list(opened.decode(stream))
    assert {frame.format.name for frame in frames} == {"yuv420p" if bits == 8 else "yuv420p10le"}
    assert times(frames) == [Fraction(each, 1000) for each in pts]
    for row, frame in enumerate(frames):
        assert psnr(luma(frame, bits), planes["plane0"][row]) > 36, row
    with av.open(path) as opened:
        stream = opened.streams.video[0]
        for row in (20, 3, 12, 26, 0, 6):
            opened.seek(round(Fraction(max(0, pts[row] - 200), 1000) / stream.time_base), stream=stream)
            frame = next(
                each for each in opened.decode(stream) if each.pts * each.time_base == Fraction(pts[row], 1000)
            )
            assert (luma(frame, bits) == luma(frames[row], bits)).all(), row


@pytest.mark.parametrize("codec", ["hevc", "av1"])
@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
def test_files_with_sound(tmp_path: Path, codec: str, container: str) -> None:
    """mov does not hold AV1: with sound that mp4 does not hold the file is matroska."""
    format_ = format_of("video", codec=codec)
    assembler = format_.assemble(tmp_path / "a", FILM)
    fragment = Fragment(key=Key(job=JOB, segment=0), media=FILM, container=container)
    assembler.add_tracks(fragment, {"head": np.frombuffer(write_head(container, [], Tags()), np.uint8)})
    for number in range(2):
        part = make_part(FILM, planes_of(6, HEIGHT, WIDTH), range(240 * number, 240 * number + 240, 40))
        made = format_.encode(part)
        assembler.add(part.meta, made.arrays, made.facts)
    (path,) = assembler.close()
    assert path.suffix == {"mp4": ".mp4", "mov": ".mkv" if codec == "av1" else ".mov", "matroska": ".mkv"}[container]
    with av.open(path) as opened:
        assert len(list(opened.decode(video=0))) == 12


def test_parameter_sets_of_hevc_stand_in_the_head_of_the_file_alone(tmp_path: Path) -> None:
    format_ = format_of("video", codec="hevc")
    parts = cut(FILM, planes_of(12, HEIGHT, WIDTH), range(0, 480, 40), [6, 6])
    headers = [format_.encode(part).arrays["header"].tobytes() for part in parts]
    assert headers[0] == headers[1]
    (path,) = assemble(format_, tmp_path / "clip", FILM, parts)
    with av.open(path) as opened:
        for packet in opened.demux(video=0):
            if packet.size:
                kinds = [unit[0] >> 1 & 63 for unit in units(bytes(packet))]
                assert not {32, 33, 34} & set(kinds), "VPS, SPS or PPS"


def units(data: bytes) -> list[bytes]:
    """The units of a packet in mp4, each behind its length."""
    reader, found = io.BytesIO(data), []
    while length := reader.read(4):
        found.append(reader.read(int.from_bytes(length, "big")))
    return found


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_a_film_of_rgb_has_finer_steps_of_10_bits(tmp_path: Path, codec: str) -> None:
    """A slope of 200 columns from 100 to 110 has 11 levels of 8 bits; mixed from three colours, more of 10."""
    slope = np.linspace(100, 110, 200)[None, :, None] + np.array([0.0, 0.35, 0.7])
    pixels = np.repeat(np.repeat(slope.astype(np.uint8), 100, 0)[None], 4, 0)
    levels = []
    for bits in (8, 10):
        media = FILM.model_copy(update={"width": 200, "height": 100})
        parts = [make_part(media, {"pixels": pixels}, range(0, 160, 40))]
        (path,) = assemble(format_of("video", codec=codec, bits=bits, crf=4), tmp_path / f"{bits}", media, parts)
        with av.open(path) as opened:
            frame = next(opened.decode(video=0))
        levels.append(len(np.unique(luma(frame, bits)[50])))
        rgb = frame.to_ndarray(format="rgb24").astype(float)
        assert np.abs(rgb[50] - pixels[0, 50]).mean() < 1.5
    assert levels[1] > 1.5 * levels[0]


def test_gray_of_full_range_reaches_white_in_10_bits(tmp_path: Path) -> None:
    pixels = np.full((2, HEIGHT, WIDTH), 255, np.uint8)
    format_ = format_of("video", codec="hevc", bits=10, crf=1)
    (path,) = assemble(format_, tmp_path / "w", FILM, [make_part(FILM, {"pixels": pixels}, [0, 40])])
    with av.open(path) as opened:
        frame = next(opened.decode(video=0))
    assert abs(float(luma(frame, 10).mean()) * 4 - 1023) < 3


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_no_thread_becomes_real_time_where_a_film_is_encoded(codec: str) -> None:
    """SVT-AV1 makes its threads and its caller's real-time where the user is root."""
    policies: set[int] = set()
    tick = lambda: policies.update(map(os.sched_getscheduler, map(int, os.listdir("/proc/self/task"))))  # noqa: E731
    format_of("video", codec=codec).encode(make_part(FILM, planes_of(2, HEIGHT, WIDTH), [0, 40]), tick)
    assert policies == {os.SCHED_OTHER}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_a_codec_cannot_hold_is_one_line() -> None:
    small = make_part(FILM, planes_of(2, 64, 200), [0, 40])
    with pytest.raises(MediaError, match=r"clip.mp4: 200x64 is too small for hevc: at least 66 pixels high and wide"):
        format_of("video", codec="hevc").encode(small)
    assert len(format_of("video", codec="av1").encode(small).arrays["sizes"]) == 2
    full = make_part(FILM, planes_of(2, HEIGHT, WIDTH, 1, 1), [0, 40])
    with pytest.raises(PipelineError, match=r"av1 takes pictures of 4:2:0, and these are yuv444p"):
        format_of("video", codec="av1").encode(full)
    assert len(format_of("video", codec="hevc").encode(full).arrays["sizes"]) == 2
    for options in ({"crf": 52.0}, {"codec": "hevc", "crf": 51.5}, {"codec": "av1", "crf": 64.0}, {"bits": 9}):
        with pytest.raises(ValidationError):
            VideoOptions(**options)


def test_defaults_of_quality_are_those_of_the_codec() -> None:
    found: list[Any] = [VideoOptions(codec=codec).quantiser for codec in ("h264", "hevc", "av1")]
    assert found == [18, 22, 26]
    assert VideoOptions(codec="av1", crf=40.0).quantiser == 40


def test_images_are_files_whatever_the_codec_of_films_is() -> None:
    media = MediaInfo(kind="image", timed=False)
    part = make_part(media, {"pixels": moving(1, 20, 30)}, [0])
    assert bytes(format_of("video", codec="av1").encode(part).arrays["data"])[:4] == b"\x89PNG"
