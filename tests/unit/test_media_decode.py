"""Parts of a segment: bounded, numbered, whole; and what damage and odd streams leave of them."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.media.decode import decode_video
from engines.media.pieces import windows_per_part
from engines.part import Array
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.picture import PictureSpec
from schemas.pipeline import PipelineSpec
from tests.clips import Clip, generated, pictures, real_clip
from tests.plans import converter, decode_plan
from tests.unit.media_passes import JOB, decoded, in_segments, joined, pipeline, raw, segments_of, sequential


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """bikes.mp4 with rubbish in the third keyframe."""
    data = bytearray(real_clip("bikes").read_bytes())
    with av.open(real_clip("bikes")) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe][2]
    assert at is not None
    data[at + 3000 : at + 3500] = b"\xff" * 500
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("layout", "size", "windows"),
    [
        ({"layout": "planes"}, (1080, 1920), 5),
        ({"layout": "planes"}, (4320, 7680), 4),
        ({"layout": "planes"}, (480, 854), 27),
        ({"layout": "planes"}, (144, 176), 128),
        ({"size": (32, 32), "layout": "gray"}, (1080, 1920), 21),
        ({"size": (32, 32), "layout": "gray"}, (144, 176), 128),
        ({"size": (32, 32), "layout": "rgb"}, (8000, 8000), 1),
    ],
)
def test_a_part_has_as_many_windows_as_its_raw_frames_allow(
    layout: dict[str, Any], size: tuple[int, int], windows: int
) -> None:
    media = MediaInfo(kind="video", height=size[0], width=size[1])
    assert windows_per_part(decode_plan(pipeline(**layout)), media) == windows


@pytest.mark.parametrize(
    ("size", "windows"), [((144, 176), 128), ((480, 720), 32), ((720, 1280), 12), ((2160, 3840), 2)]
)
def test_a_part_has_as_many_windows_as_what_a_model_makes_of_tiles_allows(size: tuple[int, int], windows: int) -> None:
    """Of 720 lines at x4 a part had 24, a gigabyte of pictures that a model made."""
    tiles = PictureSpec(tile=(256, 256), overlap=18)
    plan = replace(decode_plan(pipeline(size="source")), resized={}, of_models={"pixels@infer.input": tiles})
    assert windows_per_part(plan, MediaInfo(kind="video", height=size[0], width=size[1])) == windows


def test_parts_are_numbered_and_the_last_one_says_so() -> None:
    clip = Clip(size=(480, 640), frames=80, gop=40)
    media, segments = segments_of(generated(clip), pipeline(frames=2), 1)
    parts = decoded(media, segments, pipeline(frames=2))
    keys = [(part.meta.key.segment, part.meta.key.part, part.meta.key.last) for part in parts]
    assert keys == [(0, 0, False), (0, 1, True), (1, 0, False), (1, 1, True)]
    assert [part.meta.key.final for part in parts] == [False, False, True, True]
    assert [len(part.meta.pts) for part in parts] == [36, 4, 36, 4]
    assert [part.arrays["index"].dtype for part in parts] == [np.int32] * 4
    assert [part.meta.frames for part in parts] == [37, 3, 37, 3]


def test_a_part_holds_each_frame_once() -> None:
    spec = pipeline(fps=5, frames=5, stride=2)
    part = in_segments(generated(Clip()), spec, 100)[1][0]
    rows, index = part.arrays["pixels"], part.arrays["index"]
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert sorted(set(index.flat)) == list(range(len(rows)))


def test_the_last_frame_stands_in_past_the_end() -> None:
    part = in_segments(generated(Clip(frames=3)), pipeline(frames=4), 100)[1][-1]
    assert part.arrays["index"].tolist() == [[0, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2]]


def test_frames_that_no_window_sees_are_not_converted() -> None:
    seen = 0

    def count(frame: av.VideoFrame, orientation: int) -> dict[str, Array]:
        nonlocal seen
        seen += 1
        return raw(frame, orientation)

    spec = pipeline(fps=5, frames=2, stride=5)
    media, segments = segments_of(generated(Clip()), spec, 100)
    parts = decoded(media, segments, spec, count)
    assert seen == 4, "two windows of two frames in two seconds"
    assert sum(part.meta.frames for part in parts) == 50


def test_a_segment_without_windows_is_one_part_with_shapes() -> None:
    spec = pipeline(fps=0.5, size=[8, 6], layout="rgb")
    media, segments = segments_of(generated(Clip()), spec, 0.4)
    parts = decoded(media, segments, spec, converter(spec).convert)
    assert [len(part.meta.pts) for part in parts] == [1, 0, 0, 0, 0]
    assert parts[1].arrays["pixels"].shape == (0, 8, 6, 3)
    assert parts[1].arrays["index"].shape == (0, 1)
    assert [part.meta.key.last for part in parts] == [True] * 5
    assert [part.meta.frames for part in parts] == [10] * 5


@pytest.mark.parametrize("spec", [pipeline(frames=2), pipeline(fps=5, frames=5, stride=5)], ids=["all", "sampled"])
def test_damage_costs_only_what_it_hit(damaged: Path, spec: PipelineSpec) -> None:
    windows, parts = in_segments(damaged, spec, 2)
    clean, _ = in_segments(real_clip("bikes"), spec, 2)
    frames, lost = sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)
    assert frames + lost == 250
    assert 1 <= lost <= 5
    assert any("damaged" in note for part in parts for note in part.meta.notes)
    assert windows.pts == clean.pts
    equal = sum(map(np.array_equal, windows.seen, clean.seen))
    assert len(clean.seen) > equal > 0.5 * len(clean.seen)
    assert in_segments(damaged, spec, 2)[0] == windows


def test_a_lost_frame_is_replaced_by_the_one_before_it() -> None:
    """A packet that does not decode at all, in a codec without concealment."""
    path = generated(Clip(codec="vp9", container="webm"))
    spec = pipeline(fps=25)
    media, segments = segments_of(path, spec, 100)
    table, bodies = segments[0].buffers
    data = bytearray(bodies)
    with av.open(path) as container:
        victim = [bytes(packet) for packet in container.demux(video=0) if packet.size][39]
    at = data.index(victim)
    data[at : at + len(victim)] = b"\0" * len(victim)
    clean = joined(decoded(media, segments, spec))
    segment = segments[0].segment(Key(job=JOB, segment=0, final=True))
    parts = list(decode_video(segment, (table, bytes(data)), decode_plan(spec), raw))
    hurt = joined(parts)
    assert hurt.pts == clean.pts
    assert np.array_equal(hurt.seen[39], clean.seen[38])
    assert np.array_equal(hurt.seen[40], clean.seen[40]), "the next keyframe is whole"
    assert (sum(part.meta.frames for part in parts), parts[-1].meta.lost) == (49, 1)


@pytest.mark.parametrize("spec", [pipeline(), pipeline(size=[24, 20], layout="rgb")], ids=["planes", "rgb"])
def test_a_size_that_changes_in_mid_stream_is_brought_back(tmp_path: Path, spec: PipelineSpec) -> None:
    path = tmp_path / "changing.h264"
    path.write_bytes(b"".join(_stream(size) for size in ((72, 128), (96, 160))))
    media, segments = segments_of(path, spec, 1)
    parts = decoded(media, segments, spec, converter(spec).convert)
    shapes = {array.shape[1:] for part in parts for name, array in part.arrays.items() if name in ("pixels", "plane0")}
    assert len(shapes) == 1
    assert any("size or format changes" in note for note in parts[-1].meta.notes)
    assert sum(part.meta.frames for part in parts) == 20


def test_a_conversion_to_eight_bits_is_noted() -> None:
    spec = pipeline()
    media, segments = segments_of(generated(Clip(pixel_format="yuv420p10le")), spec, 100)
    part = decoded(media, segments, spec, converter(spec).convert)[-1]
    assert part.meta.notes == ("pixels are converted from yuv420p10le to yuv420p: 10 bits become 8",)
    assert part.arrays["plane1"].shape[1:] == (36, 64)


def test_a_clip_that_starts_in_the_middle_of_a_gop(tmp_path: Path) -> None:
    path = tmp_path / "headless.ts"
    with av.open(generated(Clip(container="ts"))) as source, av.open(path, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in _after(source.demux(stream), 5):
            packet.stream = copy
            out.mux(packet)
    for spec in (pipeline(), pipeline(fps=5, frames=5, stride=5)):
        expected, frames = sequential(path, spec)
        windows, parts = in_segments(path, spec, 0.01)
        assert windows == expected
        assert sum(part.meta.frames for part in parts) == frames == 40


def _after(packets: Iterator["av.Packet[Any]"], count: int) -> Iterator["av.Packet[Any]"]:
    for number, packet in enumerate(packets):
        if number >= count and packet.size:
            yield packet


def _stream(size: tuple[int, int]) -> bytes:
    """Ten frames of raw H.264."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = size
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    context.options = {"x264-params": "keyint=5:bframes=0:repeat-headers=1"}
    packets: list[av.Packet[Any]] = []
    for number, picture in enumerate(pictures(Clip(size=size, frames=10))):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    return b"".join(bytes(packet) for packet in [*packets, *context.encode(None)])
