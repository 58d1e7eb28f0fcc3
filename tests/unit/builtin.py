"""The models that come with rigflow as functions, and frames of real clips for them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.part import Array
from tests.clips import real_clip

CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")


@cache
def run(model: str) -> Callable[[Array], Array]:
    """A model of one input and one output, as a function."""
    spec, body = builtin_model(model)
    session = OnnxRuntimeSession(body, spec)
    return lambda array: session.run({spec.inputs[0].name: array})[spec.outputs[0].name]


@cache
def frames(path: Path, size: tuple[int, int], layout: str) -> tuple[Array, Array]:
    """All frames `[F, ...]` in `layout`, resized to height, width, and their seconds."""
    images, seconds = [], []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        reformatter = VideoReformatter()
        for frame in container.decode(stream):
            small = reformatter.reformat(
                frame, width=size[1], height=size[0], format=layout, interpolation=Interpolation.AREA
            )
            images.append(small.to_ndarray())
            seconds.append(float(frame.pts * frame.time_base))
    return np.stack(images), np.array(seconds) - seconds[0]


def windows(path: Path) -> Array:
    """`[W, 5, 32, 32]`: the windows of the pipeline `fingerprint`."""
    pixels, seconds = frames(path, (32, 32), "gray")
    ticks = np.arange(0, seconds[-1] + 1e-6, 0.2)
    ticks = ticks[: len(ticks) // 5 * 5]
    rows = np.searchsorted(seconds, ticks + 1e-6, side="right") - 1
    return pixels[rows].reshape(-1, 5, 32, 32)


def cosine(a: Array, b: Array) -> Array:
    return np.asarray((a.astype(float) * b).sum(axis=-1))


def pairs(clip: str) -> Array:
    images, _ = frames(real_clip(clip), (90, 160), "rgb24")
    return np.stack([images[:-1], images[1:]], axis=1)
