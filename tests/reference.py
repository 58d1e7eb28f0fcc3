"""The reference that answers are held against: plain PyAV, Pillow, NumPy and ONNX Runtime, and no code of rigflow.

It decodes all frames in one pass, makes each window's pictures in floating point and asks ONNX Runtime for one window
at a time. rigflow scales and converts in whole numbers by swscale, whose `area` is not exactly the mean over each
pixel's area and interpolates where a side grows: answers are near, not equal. `VALUES`, `COSINE` and `SCORE` say how
near; tests/unit/test_reference.py measures it.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
VALUES = 4.0  # of 255: mean distance of a clip's pictures. Gray has below 2, enlarged pictures in colours up to 3.8
COSINE = 0.998  # of a descriptor of `fingerprint`
SCORE = 1e-3  # of `shotchange`
BT709, BT601 = (0.2126, 0.0722), (0.299, 0.114)  # what red and blue weigh in luma: ITU-R BT.709-6 and BT.601-7
MATRICES = {1: BT709, 5: BT601, 6: BT601}  # by FFmpeg's AVColorSpace


@dataclass(frozen=True)
class Looks:
    """What a model looks at: pictures of `size` (height, width), gray or rgb, in windows of `frames`.

    Windows begin `stride` ticks of `1 / fps` seconds apart; without `fps` at every frame.
    """

    size: tuple[int, int]
    layout: str
    frames: int = 1
    stride: int = 1
    fps: float | None = None


FINGERPRINT = Looks((32, 32), "gray", frames=5, stride=5, fps=5.0)  # as docs/models.md describes them
SHOTCHANGE = Looks((90, 160), "rgb", frames=2)


def frames_of(path: Path) -> tuple[list[tuple[int, av.VideoFrame]], Fraction, int]:
    """`(pts, frame)` of every presented frame, the time base, and the quarter turns that the header asks for."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        assert stream.time_base is not None
        timed = [(frame.pts, frame) for frame in frames if frame.pts is not None]
        return timed, stream.time_base, round(frames[0].rotation / 90) % 4 if frames else 0


def rows_of(pts: list[int], time_base: Fraction, looks: Looks) -> tuple[list[float], list[list[int]]]:
    """Seconds from the first frame of every window, and which of the frames at `pts` it looks at."""
    seconds = [(each - pts[0]) * time_base for each in pts]
    if looks.fps is None:
        rows = [[min(first + step, len(pts) - 1) for step in range(looks.frames)] for first in range(len(pts))]
        return [float(each) for each in seconds], rows
    tick_s = 1 / Fraction(str(looks.fps))
    firsts = range(0, int(seconds[-1] / tick_s) + 1, looks.stride)
    shown = [[(first + step) * tick_s for step in range(looks.frames)] for first in firsts]
    rows = [[max(row for row, each in enumerate(seconds) if each <= at) for at in window] for window in shown]
    return [float(first * tick_s) for first in firsts], rows


def picture_of(frame: av.VideoFrame, looks: Looks, turns: int = 0) -> Array:
    """A frame of 8-bit YCbCr as `[H, W]` or `[H, W, 3]` float64 of 0 to 255: each plane is turned, then averaged."""
    planes = [_scaled(np.rot90(_plane(plane), turns), looks.size) for plane in frame.planes[:3]]
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    luma = planes[0] if full else (planes[0] - 16) * (255 / 219)
    if looks.layout == "gray":
        return np.clip(luma, 0, 255)
    unnamed = BT709 if frame.height >= 720 else BT601
    red_weight, blue_weight = MATRICES.get(int(frame.colorspace), unnamed)
    blue, red = ((plane - 128) * (2 if full else 2 * 255 / 224) for plane in planes[1:])
    rgb = np.stack([luma + (1 - red_weight) * red, luma, luma + (1 - blue_weight) * blue], axis=-1)
    green_weight = 1 - red_weight - blue_weight
    rgb[..., 1] -= (red_weight * (1 - red_weight) * red + blue_weight * (1 - blue_weight) * blue) / green_weight
    return np.clip(rgb, 0, 255)


def _plane(plane: Any) -> Array:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _scaled(plane: Array, size: tuple[int, int]) -> Array:
    """A plane, averaged to height and width. Pillow's box filter is the mean over each pixel's area."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BOX), np.float64)


def windows_of(path: Path, looks: Looks) -> tuple[list[float], Array]:
    """Seconds and pictures `[W, T, H, W(, 3)] uint8` of every window of the media."""
    frames, time_base, turns = frames_of(path)
    times, rows = rows_of([pts for pts, _ in frames], time_base, looks)
    pictures = np.stack([np.rint(picture_of(frame, looks, turns)).astype(np.uint8) for _, frame in frames])
    return times, pictures[np.array(rows)]


def answers_of(path: Path, model: bytes, looks: Looks) -> tuple[Array, Array]:
    """Times `[W]` and the first output `[W, ...]` of an ONNX model of one input, one window at a time."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    times, windows = windows_of(path, looks)
    (given,) = session.get_inputs()
    answers = [session.run(None, {given.name: window[None]})[0] for window in windows]
    return np.array(times), np.concatenate(answers)
