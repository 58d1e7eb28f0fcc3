"""rigflow's own sequential pass: its converter and its sessions in one loop, without segments and without a broker.

A fleet's answer equals this one byte for byte. Whether the answer is right, `tests.reference` says.
"""

from pathlib import Path

import numpy as np

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.part import Array
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec
from tests.plans import converter
from tests.reference import Looks, frames_of, rows_of


def looks_of(spec: PipelineSpec) -> Looks:
    """The windows of a pipeline; their pictures are those of its converter."""
    window = spec.decode.window
    return Looks((0, 0), "", window.frames, window.stride, spec.decode.fps)


def windows_of(path: Path, spec: PipelineSpec) -> tuple[list[float], list[Array]]:
    """Seconds from the first frame and pixels `[T, ...]` of every window of the media."""
    frames, time_base, turns = frames_of(path)
    preprocess = converter(spec)
    orientation = (1, 8, 3, 6)[turns]  # EXIF's number
    pixels = [preprocess.convert(frame, orientation)["pixels"] for _, frame in frames]
    times, windows = rows_of([pts for pts, _ in frames], time_base, looks_of(spec))
    return times, [np.stack([pixels[row] for row in rows]) for rows in windows]


def answers_of(path: Path, spec: PipelineSpec, brought: tuple[ModelSpec, bytes] | None = None) -> tuple[Array, Array]:
    """Times `[W]` and the model's answers `[W, ...]`, window by window, batch size one; of the first output."""
    card, model = brought or builtin_model(next(iter(spec.model_names.values())))
    session = OnnxRuntimeSession(model, card)
    times, windows = windows_of(path, spec)
    name = card.outputs[0].name
    answers = [session.run({"pixels": window[None]})[name] for window in windows]
    session.close()
    return np.array(times), np.concatenate(answers)
