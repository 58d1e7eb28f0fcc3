"""The loop that decodes in bursts, over decoders of the host; frames become PyAV's again where a test reads them."""

import ctypes
import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.cuda.burst import BurstDecoder, BurstFrame
from engines.cuda.burst_library import BurstLibrary
from engines.media.bursts import BurstDecoder as Bursts


@functools.cache
def library() -> BurstLibrary:
    """The loop, compiled once for all tests of this process."""
    return BurstLibrary(Path(tempfile.mkdtemp(prefix="rigflow-bursts-")))


class HostBursts:
    """Decoders of the host that decode in bursts; `leases` are what was asked for."""

    def __init__(self, loop: BurstLibrary | None = None) -> None:
        self._loop = loop or library()
        self.leases: list[bool] = []

    @contextmanager
    def lease(self, like: VideoCodecContext, label: str, bursts: bool = False) -> Iterator[VideoCodecContext | Bursts]:
        self.leases.append(bursts)
        yield BurstDecoder(self._loop, like) if bursts else like


def as_frame(frame: Any) -> av.VideoFrame:
    """The picture of a frame, whichever way it was decoded; its planes are copied."""
    if not isinstance(frame, BurstFrame):
        return cast(av.VideoFrame, frame)
    made = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for plane, pointer, line in zip(made.planes, *frame.in_memory(), strict=False):
        lines = np.frombuffer(ctypes.string_at(pointer, line * plane.height), np.uint8).reshape(plane.height, line)
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : min(line, plane.line_size)] = lines[:, : plane.line_size]
        plane.update(padded.tobytes())
    made.pts, made.colorspace, made.color_range = frame.pts, frame.colorspace, frame.color_range
    return made
