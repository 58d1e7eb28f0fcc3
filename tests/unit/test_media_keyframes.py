"""Containers that call packets keyframes that are none: a cut there would give other pictures, or lose some."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.media.intra import is_intra
from engines.media.split import Splitter
from tests.clips import Clip, pictures
from tests.unit.media_passes import in_segments, pipeline, sequential

FRAMES = pipeline()


@dataclass(frozen=True)
class Stream:
    """A stream of an encoder with a keyframe each ten pictures, and the container that says so of all packets."""

    encoder: str
    container: str
    b_frames: int = 0
    told: bool = True  # its pictures say what they are
    size: tuple[int, int] = (64, 96)
    options: str = ""


STREAMS = [
    Stream("mpeg1video", "mkv"),
    Stream("mpeg2video", "mkv", b_frames=2),
    Stream("mpeg4", "mp4", b_frames=2),
    Stream("mpeg4", "avi"),
    Stream("h263", "3gp", size=(144, 176)),
    Stream("h263", "avi", size=(144, 176)),  # FFmpeg calls all of them keyframes by itself
    Stream("h263p", "avi"),
    Stream("flv", "flv"),
    Stream("msmpeg4v2", "avi"),
    Stream("msmpeg4", "avi"),
    Stream("wmv1", "avi"),
    Stream("wmv2", "asf"),
    Stream("libvpx", "webm"),
    Stream("libvpx-vp9", "webm", options="deadline=realtime:cpu-used=8:lag-in-frames=0"),
    Stream("libx264", "mp4", b_frames=2, options="preset=ultrafast:x264-params=keyint=10\\:scenecut=0"),
    Stream("libx265", "mp4", options="preset=ultrafast:x265-params=keyint=10\\:log-level=none\\:pools=none"),
    Stream("h261", "avi", size=(144, 176), told=False),
    Stream("snow", "nut", told=False),
]


def encoded(stream: Stream, path: Path) -> list["av.Packet[av.VideoStream]"]:
    """Write it with all packets marked."""
    options = dict(each.split("=", 1) for each in stream.options.replace("\\:", "|").split(":") if each)
    options = {key: value.replace("|", ":") for key, value in options.items()}
    packets = []
    with av.open(path, "w") as out:
        video = out.add_stream(stream.encoder, rate=25, options=options)
        assert isinstance(video, av.VideoStream)
        context = video.codec_context
        video.height, video.width, video.pix_fmt = *stream.size, "yuv420p"
        context.gop_size, context.max_b_frames, context.thread_count = 10, stream.b_frames, 1
        for number, picture in enumerate(pictures(Clip(frames=30, size=stream.size))):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in packets:
            packet.is_keyframe = True
            out.mux(packet)
    return packets


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: f"{stream.encoder}-{stream.container}")
def test_no_cut_where_a_container_wrongly_says_keyframe(stream: Stream, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{stream.container}"
    encoded(stream, path)
    expected, frames = sequential(path, FRAMES)
    assert frames == 30
    with Splitter(path, FRAMES.grid, 0.001) as splitter:
        assert len(list(splitter.segments())) in ((3, 4) if stream.told else (1,))
    for segment_s in (0.001, 0.7):
        windows, parts = in_segments(path, FRAMES, segment_s)
        assert all(map(np.array_equal, windows.seen, expected.seen)), segment_s
        assert (sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)) == (30, 0)


def test_a_joined_gif_is_cut_at_its_own_first_picture(tmp_path: Path) -> None:
    """FFmpeg marks the packet in front of it, behind whose picture the second file's header lies."""
    path = tmp_path / "clip.gif"
    with av.open(path, "w") as out:
        video = out.add_stream("gif", rate=25)
        assert isinstance(video, av.VideoStream)
        video.height, video.width, video.pix_fmt = 48, 64, "rgb8"
        for number, picture in enumerate(pictures(Clip(frames=12, size=(48, 64)))):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    path.write_bytes(path.read_bytes() * 2)
    whole, _ = in_segments(path, FRAMES, 3600)
    cut, parts = in_segments(path, FRAMES, 0.001)
    assert whole == cut
    assert (sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)) == (24, 0)


AV1_KEY = bytes.fromhex("1200 0a0b000000042cfaf7dcd5cf20 3202 1080".replace(" ", ""))


def test_the_pictures_of_av1_say_what_they_are() -> None:
    assert is_intra("av1", AV1_KEY)
    assert is_intra("av1", b"\x12\x00\x32\x02\x30\x80") is False, "an inter frame"
    assert is_intra("av1", b"\x12\x00\x1a\x01\x80") is False, "a frame that was decoded before is shown"
    assert is_intra("av1", b"\x0a\x02\x18\x00") is True, "a still picture"
    assert is_intra("av1", b"\x12\x00") is None


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg4", "h263", "flv1", "vp8", "vp9", "av1", "wmv2", "theora", "gif"])
def test_any_bytes_have_an_answer(codec: str) -> None:
    dice = np.random.default_rng(1)
    for size in (0, 1, 2, 5, 9, 40):
        for _ in range(40):
            assert is_intra(codec, dice.bytes(size)) in (True, False, None)
            assert is_intra(codec, b"\0\0\1\0"[:size] + dice.bytes(size)) in (True, False, None)
    assert is_intra("a codec that does not exist", b"1") is None
