"""Of several video streams FFmpeg's best one is taken, or the one that is asked for; cover art is no video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from engines.media.split import Splitter
from pipelines.registry import builtin_pipeline
from schemas.errors import MediaError
from schemas.pipeline import PipelineSpec
from tests.clips import still
from tests.unit.media_passes import decoded, pipeline, segments_of

SMALL, LARGE = (96, 72), (160, 120)


def film(path: Path, sizes: list[tuple[int, int]], cover: bool = False, frames: int = 30) -> Path:
    """A file with a video stream of each size (width, height), all of them by default, and maybe cover art before."""
    with av.open(str(path), "w") as out:
        art = out.add_stream("mjpeg", rate=1) if cover else None
        if art is not None:
            art.width, art.height, art.pix_fmt = 1200, 800, "yuvj420p"
            art.disposition = Disposition.attached_pic
        options = {"preset": "ultrafast", "g": "10", "bf": "0", "x264-params": "cpu-independent=1"}
        streams = [out.add_stream("libx264", rate=25, options=options) for _ in sizes]
        for stream, (width, height) in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default
        if art is not None:
            packet = av.Packet(still("mjpeg", (800, 1200)))
            packet.stream, packet.pts, packet.dts, packet.time_base = art, 0, 0, Fraction(1, 1)
            packet.is_keyframe = True
            out.mux(packet)
        for number in range(frames):
            for stream, (width, height) in zip(streams, sizes, strict=True):
                pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
                frame.pts = number
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("sizes", [[SMALL, LARGE], [LARGE, SMALL]], ids=["second", "first"])
@pytest.mark.parametrize("sound", [False, True])
def test_the_best_stream_is_ffmpegs_choice(
    tmp_path: Path, suffix: str, sizes: list[tuple[int, int]], sound: bool
) -> None:
    path = film(tmp_path / f"two.{suffix}", sizes)
    with av.open(path) as container:
        best = container.streams.best("video")
        assert isinstance(best, av.VideoStream)
        wanted = best.width, best.height
    if suffix in ("mp4", "mov"):  # other headers tell of no bit rate
        assert wanted == LARGE
    with Splitter(path, pipeline().grid, 0.4, sound=sound) as splitter:
        assert (splitter.media.width, splitter.media.height) == wanted
        segments = list(splitter.segments())
        parts = decoded(splitter.media, segments, pipeline())
    assert sum(part.meta.frames for part in parts) == 30
    assert {part.arrays["pixels"].shape[1] for part in parts} == {wanted[0] * wanted[1] * 3 // 2}


@pytest.mark.parametrize(("number", "size"), [(0, SMALL), (1, LARGE)])
def test_a_stream_may_be_chosen_by_its_index(tmp_path: Path, number: int, size: tuple[int, int]) -> None:
    path = film(tmp_path / "two.mp4", [SMALL, LARGE])
    spec = pipeline().with_stream(number)
    for segment_s in (0.4, 60.0):
        with Splitter(path, spec.grid, segment_s, stream=number) as splitter:
            parts = decoded(splitter.media, list(splitter.segments()), spec)
        assert sum(part.meta.frames for part in parts) == 30
        assert {part.arrays["pixels"].shape[1] for part in parts} == {size[0] * size[1] * 3 // 2}


def test_a_stream_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "two.mp4", [SMALL, LARGE])
    with pytest.raises(MediaError, match=r"no video stream 2: choose by --stream one of those that it has: 0, 1"):
        Splitter(path, pipeline().grid, 1, stream=2).__enter__()


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_cover_art_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"art.{suffix}", [SMALL, LARGE], cover=True)
    media, _ = segments_of(path, pipeline(), 1)
    assert (media.width, media.height) == LARGE


def test_a_pipeline_with_a_stream_is_another_revision_and_the_same_otherwise() -> None:
    plain: PipelineSpec = builtin_pipeline("fingerprint")
    assert plain.with_stream(None) is plain
    assert plain.with_stream(1).revision != plain.revision
    assert plain.with_stream(1).decode.stream == 1
    assert plain.with_stream(1).stage[1:] == plain.stage[1:]
