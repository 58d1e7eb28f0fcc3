"""The picture of a film at a time is the last frame until then, also where a container has no index to seek by."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.media.medium import Input, any_recognised
from schemas.errors import UsageError

FRAMES, GOP = 60, 12


def film(path: Path, codec: str) -> Path:
    """Frames of 25 a second, each a grey of its own; keyframes are half a second apart, and B-frames between them."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = GOP, 2
        for number in range(FRAMES):
            picture = np.full((48, 64, 3), 20 + 3 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return path


def grey(path: Path, at_s: float) -> float:
    shown = any_recognised(Input(path, path.name)).picture(path, at_s)
    return float(shown.frame.to_ndarray(format="gray").mean())


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("clip.ts", "libx264"),
        ("clip.ts", "mpeg2video"),
        ("clip.mp4", "libx264"),
        ("clip.mkv", "libx264"),
        ("clip.avi", "mpeg4"),
        ("clip.flv", "libx264"),
    ],
)
def test_a_film_shows_the_last_frame_until_a_time(tmp_path: Path, name: str, codec: str) -> None:
    path = film(tmp_path / name, codec)
    with av.open(str(path)) as container:
        frames = [
            (frame.pts, frame.to_ndarray(format="gray").mean())
            for frame in container.decode(video=0)
            if frame.pts is not None
        ]
        stream = container.streams.video[0]
        base, start = stream.time_base or Fraction(1), stream.start_time or 0
    assert len(frames) == FRAMES
    assert grey(path, 0) == pytest.approx(frames[0][1], abs=1)
    for pts, shade in frames[1::7] + frames[GOP - 1 : GOP + 2] + frames[-1:]:
        assert grey(path, float((pts - start) * base) + 0.001) == pytest.approx(shade, abs=1)
    with pytest.raises(UsageError, match=r"has no picture at 9\.00 s: it ends at 2\.4"):
        grey(path, 9)
