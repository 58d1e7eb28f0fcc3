"""A worker whose engine dies of one input: `start_poisoned` is what such a process runs.

A white frame ends its process at once, as a driver's fault on damaged data would; a black one loses it the device. Raw
media that begins with `DEADLY` ends it while it is split.
"""

import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import rigflow_simulated
from rigflow_simulated import SimulatedSession

import workers.sessions
import workers.split
from engines.media.medium import Input, Medium, PipelineMedia
from engines.part import Array
from engines.ports import Session
from pipelines.registry import builtin_pipeline
from schemas.errors import DeviceLost
from schemas.model import ModelSpec
from workers.options import WorkerOptions
from workers.process import limit_memory, start_worker

DEADLY = b"deadly"
DEADLY_MODEL = next(iter(builtin_pipeline("scenes").model_names.values()))
BLACK = 30
WHITE = 225  # of 255, and nothing else in a clip of ours is that bright all over


def die() -> None:
    """End this process as a segmentation fault would: without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


class DeadlyMedia(PipelineMedia):
    """As ever, or never again."""

    def recognised(self, given: Input) -> Medium:
        """What a file is, if it is not deadly."""
        if isinstance(given.source, bytes) and given.source.startswith(DEADLY):
            die()
        return super().recognised(given)


class Poisoned(SimulatedSession):
    """`simulated`, until it is given a white frame."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answers of one batch, or nothing ever again."""
        if any(np.all(row >= WHITE) for row in inputs["pixels"]):
            die()
        if any(np.all(row <= BLACK) for row in inputs["pixels"]):
            raise DeviceLost("the device's context is lost", "the worker starts anew")
        return super().run(inputs)


def poisoned_clip(
    path: Path, groups: int, gop: int, poison: tuple[int, ...], seed: int = 0, size: int = 32, level: int = 255
) -> Path:
    """Noise, 25 frames a second, a keyframe each `gop` frames; of one `level` all through the groups in `poison`."""
    dice = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        for number in range(groups * gop):
            flat = number // gop in poison
            picture = (
                np.full((size, size, 3), level, np.uint8) if flat else dice.integers(0, 160, (size, size, 3), np.uint8)
            )
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(video.encode(None))
    return path


def start_poisoned(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """Be such a worker."""
    workers.split.PipelineMedia = DeadlyMedia  # type: ignore[misc]
    rigflow_simulated.SimulatedSession = Poisoned  # type: ignore[misc]
    start_worker(options, heartbeats)


def start_with_deadly_model(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """Be a worker whose process ends while it loads the model of `scenes`."""
    load = workers.sessions._warmed

    def warmed(model: bytes, card: ModelSpec, *rest: Any) -> Session:
        if card.name == DEADLY_MODEL:
            os.kill(os.getpid(), signal.SIGSEGV)
        return load(model, card, *rest)

    workers.sessions._warmed = warmed
    start_worker(options, heartbeats)


def start_hungry(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """Take 256 MiB, and say by the exit code whether that was refused."""
    if options.name == "limited":
        limit_memory(options)
    try:
        taken = np.ones(256 << 20, np.uint8)
    except MemoryError:
        os._exit(0)
    time.sleep(60 if taken.any() else 0)
