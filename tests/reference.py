"""The plain sequential pass that every fleet is held against: one loop over one decoder, no segments, no broker."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.part import Array
from engines.transforms import Preprocess
from schemas.pipeline import PipelineSpec


def frames_of(path: Path) -> tuple[list[tuple[int, av.VideoFrame]], Fraction, int]:
    """`(pts, frame)` of every presented frame, the time base, and the rotation."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        assert stream.time_base is not None
        timed = [(frame.pts, frame) for frame in frames if frame.pts is not None]
        return timed, stream.time_base, frames[0].rotation if frames else 0


def windows_of(path: Path, spec: PipelineSpec) -> tuple[list[float], list[Array]]:
    """Seconds from the first frame and pixels `[T, ...]` of every window of the media."""
    frames, time_base, rotation = frames_of(path)
    preprocess = Preprocess(spec.preprocess)
    pixels = [preprocess.convert(frame, rotation)["pixels"] for _, frame in frames]
    pts = [pts for pts, _ in frames]
    length, stride = spec.preprocess.window.frames, spec.preprocess.window.stride
    times: list[float] = []
    windows: list[Array] = []
    if spec.decode.fps is None:
        for first in range(len(frames)):
            rows = [min(first + step, len(frames) - 1) for step in range(length)]
            times.append(float((pts[first] - pts[0]) * time_base))
            windows.append(np.stack([pixels[row] for row in rows]))
        return times, windows
    tick_s = 1 / Fraction(str(spec.decode.fps))
    first = 0
    while first * tick_s <= (pts[-1] - pts[0]) * time_base:
        rows = [_seen_at((first + step) * tick_s, pts, time_base) for step in range(length)]
        times.append(float(first * tick_s))
        windows.append(np.stack([pixels[row] for row in rows]))
        first += stride
    return times, windows


def _seen_at(seconds: Fraction, pts: list[int], time_base: Fraction) -> int:
    """Index of the last frame that is not after `seconds`."""
    return max(index for index, each in enumerate(pts) if (each - pts[0]) * time_base <= seconds)


def answers_of(path: Path, spec: PipelineSpec) -> tuple[Array, Array]:
    """Times `[W]` and the model's answers `[W, ...]`, window by window, batch size one."""
    card, model = builtin_model(spec.infers[0].model)
    session = OnnxRuntimeSession(model, card)
    times, windows = windows_of(path, spec)
    name = card.outputs[0].name
    answers = [session.run({"pixels": window[None]})[name] for window in windows]
    session.close()
    return np.array(times), np.concatenate(answers)
