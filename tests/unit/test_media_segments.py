"""Splitting and decoding piece by piece gives what one plain pass over one decoder gives, bit for bit."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.media import packets
from engines.media.split import Splitter
from engines.media.track_packets import unpack_track
from schemas.errors import MediaError, MessageError
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from tests.clips import Clip, generated, pictures, real_clip, still
from tests.unit.media_passes import JOB, decoded, in_segments, joined, pipeline, segments_of, sequential

CUTTABLE = [
    Clip(),
    Clip(open_gop=True),
    Clip(vfr=True, b_frames=3),
    Clip(rotation=90),
    Clip(size=(71, 129), pixel_format="yuv444p"),
    Clip(pixel_format="yuv420p10le"),
    Clip(container="mkv", open_gop=True),
    Clip(container="mkv", vfr=True, sound="libopus"),
    Clip(container="ts", sound="mp2"),
    Clip(container="ts", open_gop=True),
    Clip(container="mov", sound="aac"),
    Clip(container="avi", b_frames=0),
    Clip(codec="hevc"),
    Clip(codec="hevc", open_gop=True, container="mkv"),
    Clip(codec="hevc", open_gop=True, container="ts"),
    Clip(codec="vp9", container="webm", size=(71, 129)),
    Clip(codec="vp9"),
    Clip(codec="av1"),
    Clip(codec="av1", container="webm"),
    Clip(codec="mpeg4", container="avi", sound="aac"),
    Clip(codec="mpeg4", container="avi", vfr=True),
    Clip(codec="mpeg4", open_gop=True),
    Clip(codec="mpeg4", container="ts"),
]
UNTIMED = {Clip(container="h264"): 48000, Clip(container="h264", b_frames=0): 48000, Clip(container="avi"): 4}
GRAY: dict[str, Any] = {"size": [8, 8], "layout": "gray"}  # frames stay as their decoder gives them, until preprocess
GRIDS = [
    pipeline(**GRAY),
    pipeline(frames=3, **GRAY),
    pipeline(fps=5, frames=5, stride=5, **GRAY),
    pipeline(fps=7, frames=4, stride=2, **GRAY),
    pipeline(fps=2.5, frames=1, stride=3, **GRAY),
    pipeline(fps=60, frames=2, stride=1, **GRAY),
]


@pytest.mark.parametrize("clip", CUTTABLE, ids=lambda clip: clip.name)
def test_segments_equal_one_pass(clip: Clip) -> None:
    path = generated(clip)
    for spec in GRIDS:
        expected, frames = sequential(path, spec)
        for segment_s in (0.01, 0.7, 100) if spec is GRIDS[-1] else (0.01, 0.7):
            windows, parts = in_segments(path, spec, segment_s)
            assert windows == expected, (spec.grid, segment_s)
            assert sum(part.meta.frames for part in parts) == frames == clip.frames
            assert not any(part.meta.lost for part in parts)
    assert parts[-1].meta.key.segment == 0, "a segment longer than the media is the whole media"
    assert len(segments_of(path, spec, 0.01)[1]) >= 5, "a keyframe each ten frames, and a cut at each"


@pytest.mark.parametrize("name", ["bikes", "carphone_pristine"])
def test_segments_of_real_clips_equal_one_pass(name: str) -> None:
    for spec in (GRIDS[1], GRIDS[2]):
        expected, _ = sequential(real_clip(name), spec)
        for segment_s in (0.5, 4):
            assert in_segments(real_clip(name), spec, segment_s)[0] == expected


@pytest.mark.parametrize("clip", UNTIMED, ids=lambda clip: clip.name)
def test_frames_without_times_of_their_own_take_those_of_packets_in_order(clip: Clip) -> None:
    """Raw streams have no times, AVI those of decoding; both are cut where no frame is shown before the keyframe."""
    path, step = generated(clip), UNTIMED[clip]
    for spec in GRIDS:
        windows, parts = in_segments(path, spec, 0.01)
        expected, frames = sequential(path, spec, [step * number for number in range(clip.frames)])
        assert windows == expected
        assert sum(part.meta.frames for part in parts) == frames
        assert not any(part.meta.lost for part in parts)
    assert len(segments_of(path, spec, 0.01)[1]) == 5


def test_packed_frames_of_mpeg4_take_the_times_of_packets_in_order(tmp_path: Path) -> None:
    """As Xvid writes them: of two B-frames one lies in the packet before it, and a VOP without picture follows."""
    path = _packed(tmp_path / "packed.avi")
    with av.open(path) as container:
        times = [packet.pts or 0 for packet in container.demux(video=0) if packet.size]
    assert times != sorted(times), "FFmpeg works them out, as if each packet held one frame"
    for spec in GRIDS:
        expected, frames = sequential(path, spec, sorted(times))
        for segment_s in (0.01, 100):
            windows, parts = in_segments(path, spec, segment_s)
            assert windows == expected
            assert sum(part.meta.frames for part in parts) == frames == len(times)
            assert not any(part.meta.lost for part in parts)


def test_times_that_start_over_are_counted_on(tmp_path: Path) -> None:
    """Two recordings of a transport stream, one behind the other."""
    first, second = (generated(Clip(container="ts", seed=seed)).read_bytes() for seed in (0, 1))
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    spec = pipeline()
    windows, parts = in_segments(path, spec, 0.01)
    assert windows == sequential(path, spec, [7200 + 3600 * number for number in range(100)])[0]
    assert sum(part.meta.frames for part in parts) == 100
    assert "start anew or leap 1 times" in parts[0].meta.notes[0]


@pytest.mark.parametrize("shift", [7, 10, 25])
def test_what_an_edit_list_hides_at_the_start_stays_hidden(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "edited.mp4"
    with av.open(generated(Clip())) as source, av.open(path, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift * 512, packet.dts - shift * 512
                packet.stream = copy
                out.mux(packet)
    for spec in GRIDS:
        expected, frames = sequential(path, spec)
        for segment_s in (0.01, 100):
            windows, parts = in_segments(path, spec, segment_s)
            assert windows == expected
            assert sum(part.meta.frames for part in parts) == frames


@pytest.mark.parametrize("container", ["mp4", "ts"])
def test_no_cut_where_a_picture_only_begins_to_recover(tmp_path: Path, container: str) -> None:
    """Periodic intra refresh: what is marked as a keyframe is none that a decoder could start at."""
    path = tmp_path / f"refreshed.{container}"
    clip = Clip(frames=40)
    with av.open(path, "w") as out:
        video = out.add_stream("libx264", rate=25, options={"x264-params": "intra-refresh=1:keyint=12:bframes=0"})
        video.height, video.width = clip.size
        for picture in pictures(clip):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        out.mux(video.encode(None))
    windows, parts = in_segments(path, pipeline(), 0.01)
    assert windows == sequential(path, pipeline())[0]
    assert {part.meta.key.segment for part in parts} == {0}


def test_pieces_tile_the_media_and_say_which_is_final() -> None:
    _, segments = segments_of(generated(Clip(open_gop=True)), pipeline(fps=5, frames=5, stride=5), 0.01)
    assert [segment_data.end for segment_data in segments[:-1]] == [segment_data.start for segment_data in segments[1:]]
    assert [segment_data.final for segment_data in segments] == [False] * (len(segments) - 1) + [True]
    assert segments[-1].end is None


def test_segments_are_as_long_as_asked() -> None:
    media, segments = segments_of(real_clip("bikes"), pipeline(), 2.0)
    borders = [media.clock.seconds(segment_data.start) for segment_data in segments]
    assert all(b - a >= 2.0 for a, b in pairwise(borders))
    assert len(segments) > 2


def test_a_closed_gop_carries_nothing_twice() -> None:
    path = generated(Clip(b_frames=0))
    _, segments = segments_of(path, pipeline(), 0.01)
    assert (
        sum(len(packets.unpack(segment_data.codec, segment_data.buffers)[1]) for segment_data in segments)
        == Clip().frames
    )


def test_a_source_in_memory_is_the_same_as_a_file() -> None:
    path = generated(Clip(sound="aac"))
    from_bytes, from_file = (segments_of(source, pipeline(), 0.3)[1] for source in (path.read_bytes(), path))
    for one, other in zip(from_bytes, from_file, strict=True):
        named = one.media.model_copy(update={"name": path.name})
        assert replace(one, media=named, tracks=None) == replace(other, tracks=None)
        assert one.tracks
        assert other.tracks
        assert all(np.array_equal(array, other.tracks.arrays[name]) for name, array in one.tracks.arrays.items())


@pytest.mark.parametrize(
    "clip",
    [
        Clip(sound="aac"),
        Clip(container="mov", sound="aac"),
        Clip(container="mkv", vfr=True, sound="libopus"),
        Clip(container="ts", sound="mp2"),
        Clip(codec="mpeg4", container="avi", sound="aac"),
    ],
    ids=lambda clip: clip.name,
)
@pytest.mark.parametrize("segment_s", [0.01, 0.7, 100])
def test_sound_travels_whole_and_on_time(clip: Clip, segment_s: float) -> None:
    path = generated(clip)
    _, segments = segments_of(path, pipeline(), segment_s)
    with av.open(path) as container:
        expected = [(bytes(p), p.pts * p.time_base) for p in container.demux(audio=0) if p.pts is not None]
    found = []
    for segment_data in segments:
        if segment_data.tracks and "table0" in segment_data.tracks.arrays:
            found += list(unpack_track(segment_data.tracks.arrays["table0"], segment_data.tracks.arrays["data0"]))
    assert segments[0].tracks is not None
    (track,) = segments[0].tracks.tracks
    assert [(bytes(packet), packet.pts * Fraction(*track.time_base)) for packet in found] == expected


def test_media_info_says_what_the_media_is() -> None:
    clip = Clip(rotation=90, size=(70, 130), colour=(1, 1, 1, 1))
    media, _ = segments_of(generated(clip), pipeline(), 1)
    expected = {"kind": "video", "codec": "h264", "width": 130, "height": 70, "orientation": 8, "frame_rate": (25, 1)}
    colours = {"color_space": 1, "color_primaries": 1, "color_transfer": 1, "color_range": 1, "pixel_format": "yuv420p"}
    assert media.model_dump(include={*expected, *colours}) == expected | colours
    assert media.name == clip.name
    assert media.duration_s == pytest.approx(clip.frames / clip.rate)
    assert (media.origin, media.last) == (0, 49 * 512)


def test_the_picture_is_chosen_over_cover_art(tmp_path: Path) -> None:
    path = tmp_path / "covered.mkv"
    with av.open(generated(Clip())) as source, av.open(path, "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        picture = av.Packet(still("mjpeg", (480, 640)))
        picture.stream, picture.pts, picture.dts = cover, 0, 0
        out.mux(picture)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    media, _ = segments_of(path, pipeline(), 1)
    assert (media.codec, media.width) == ("h264", 128)


def test_a_frame_rate_over_the_clock_keeps_every_frame() -> None:
    clip = replace(Clip(), rate=50, container="mkv")
    spec = pipeline(fps=1000, frames=2, stride=2)
    assert in_segments(generated(clip), spec, 0.2)[0] == sequential(generated(clip), spec)[0]


def test_any_piece_can_be_decoded_alone() -> None:
    spec: PipelineSpec = pipeline(frames=3)
    media: MediaInfo
    media, segments = segments_of(generated(Clip(codec="hevc", open_gop=True)), spec, 0.01)
    everything = joined(decoded(media, segments, spec))
    alone = joined(decoded(media, segments[2:3], spec))
    at = everything.pts.index(alone.pts[0])
    assert alone.pts == everything.pts[at : at + len(alone.pts)]
    assert all((a == b).all() for a, b in zip(alone.seen, everything.seen[at:], strict=False))


def test_no_piece_is_of_a_file_that_was_written_again(tmp_path: Path) -> None:
    clip = Path(shutil.copy(generated(Clip()), tmp_path))
    with Splitter(clip, pipeline().grid, 0.3) as splitter:
        segments = splitter.segments()
        next(segments)
        with clip.open("r+b") as file:
            file.write(clip.read_bytes())
        with pytest.raises(MediaError, match="changed while it was read"):
            next(segments)


def test_a_file_that_is_moved_meanwhile_is_read_to_its_end(tmp_path: Path) -> None:
    clip = Path(shutil.copy(generated(Clip()), tmp_path))
    with Splitter(clip, pipeline().grid, 0.3) as splitter:
        segments = splitter.segments()
        found = [next(segments)]
        clip.rename(tmp_path / "elsewhere.mp4")
        found += segments
    _, whole = segments_of(generated(Clip()), pipeline(), 0.3)
    assert [segment_data.buffers for segment_data in found] == [segment_data.buffers for segment_data in whole]


def test_a_message_cannot_make_a_decoder_hold_back_more_frames_than_its_tables_have() -> None:
    """FFmpeg's decoder of H.264 writes beyond them: its process ends."""
    spec = pipeline()
    _, [*segments] = segments_of(generated(Clip()), spec, 0.5)
    segment = segments[0].segment(Key(job=JOB, segment=0))
    assert segment.codec is not None
    forged = segment.model_copy(update={"codec": segment.codec.model_copy(update={"reorder": 17})})
    with pytest.raises(MessageError, match=r"codec\.reorder: should be less than or equal to 16"):
        decode(forged.encode(segments[0].buffers))


def test_a_segment_of_a_pixel_format_that_does_not_exist_is_refused() -> None:
    spec = pipeline(layout="planes")
    media, segments = segments_of(generated(Clip()), spec, 0.5)
    with pytest.raises(MediaError, match="nonsense"):
        decoded(media.model_copy(update={"pixel_format": "nonsense", "width": 10}), segments, spec)


def _packed(path: Path) -> Path:
    """I, P with B, B, a VOP that is not coded, and so on. Source: ISO 14496-2, 6.2.5; FFmpeg's mpeg4_unpack_bframes."""
    start, output = b"\0\0\1\xb6", b"\0\0\1\xb2"
    with av.open(generated(Clip(codec="mpeg4", container="avi", frames=49, gop=12))) as source:
        stream = source.streams.video[0]
        frames = [bytes(packet) for packet in source.demux(stream) if packet.size]
        with av.open(path, "w") as out:
            copy = out.add_stream_from_template(stream)
            for number, data in enumerate(_in_packets(frames, start)):
                at = data.find(output)
                end = data.find(b"\0\0\1", at + 4)
                made = av.Packet(data if at < 0 else data[:at] + output + b"DivX503b1393p" + data[end:])
                made.stream, made.time_base, made.pts, made.dts = copy, Fraction(1, 25), number, number
                made.is_keyframe = _coding(data, start) == 0
                out.mux(made)
    return path


def _coding(frame: bytes, start: bytes) -> int:
    return frame[frame.index(start) + 4] >> 6  # 0 I, 1 P, 2 B


def _in_packets(frames: list[bytes], start: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(frames):
        after = at + 1
        while after < len(frames) and _coding(frames[after], start) == 2:
            after += 1
        if after == at + 1:
            yield frames[at]
        else:
            yield frames[at] + frames[at + 1]
            yield from frames[at + 2 : after]
            yield start + b"\x40\x00\x7f"
        at = after
