"""The plain sequential pass that every fleet is held against: one loop over one decoder, no segments, no broker."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.part import Array
from schemas.pipeline import ModelSpec, PipelineSpec
from tests.plans import converter


def frames_of(path: Path) -> tuple[list[tuple[int, av.VideoFrame]], Fraction, int]:
    """`(pts, frame)` of every presented frame, the time base, and EXIF's number of the rotation."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        assert stream.time_base is not None
        timed = [(frame.pts, frame) for frame in frames if frame.pts is not None]
        turns = round(frames[0].rotation / 90) % 4 if frames else 0
        return timed, stream.time_base, (1, 8, 3, 6)[turns]


def windows_of(path: Path, spec: PipelineSpec) -> tuple[list[float], list[Array]]:
    """Seconds from the first frame and pixels `[T, ...]` of every window of the media."""
    frames, time_base, orientation = frames_of(path)
    preprocess = converter(spec)
    pixels = [preprocess.convert(frame, orientation)["pixels"] for _, frame in frames]
    times, looks = looks_of([pts for pts, _ in frames], time_base, spec)
    return times, [np.stack([pixels[row] for row in rows]) for rows in looks]


def looks_of(pts: list[int], time_base: Fraction, spec: PipelineSpec) -> tuple[list[float], list[list[int]]]:
    """Seconds from the first frame of every window, and which of the frames at `pts` it looks at."""
    length, stride = spec.decode.window.frames, spec.decode.window.stride
    times: list[float] = []
    looks: list[list[int]] = []
    if spec.decode.fps is None:
        for first in range(len(pts)):
            times.append(float((pts[first] - pts[0]) * time_base))
            looks.append([min(first + step, len(pts) - 1) for step in range(length)])
        return times, looks
    tick_s = 1 / Fraction(str(spec.decode.fps))
    first = 0
    while first * tick_s <= (pts[-1] - pts[0]) * time_base:
        times.append(float(first * tick_s))
        looks.append([_seen_at((first + step) * tick_s, pts, time_base) for step in range(length)])
        first += stride
    return times, looks


def _seen_at(seconds: Fraction, pts: list[int], time_base: Fraction) -> int:
    """Index of the last frame that is not after `seconds`."""
    return max(index for index, each in enumerate(pts) if (each - pts[0]) * time_base <= seconds)


def answers_of(path: Path, spec: PipelineSpec, brought: tuple[ModelSpec, bytes] | None = None) -> tuple[Array, Array]:
    """Times `[W]` and the model's answers `[W, ...]`, window by window, batch size one; of the first output."""
    card, model = brought or builtin_model(next(iter(spec.model_names.values())))
    session = OnnxRuntimeSession(model, card)
    times, windows = windows_of(path, spec)
    name = card.outputs[0].name
    answers = [session.run({"pixels": window[None]})[name] for window in windows]
    session.close()
    return np.array(times), np.concatenate(answers)
