"""The loop that decodes and converts parts, over decoders of the host and with the kernels' source run there."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat

from engines.cuda.burst import BurstDecoder, Converting
from engines.cuda.burst_frame import BurstFrame
from engines.cuda.burst_library import BurstLibrary
from engines.cuda.kernels import PLANE
from engines.cuda.kinds import Kind
from engines.cuda.recipes import Recipe, traced
from engines.media.bursts import PartDecoder
from tests.host_gpu import HostGpu
from tests.kept_folders import kept_folder

_CUDA = 117  # AVPixelFormat of frames on a GPU


@functools.cache
def library() -> BurstLibrary:
    """The loop, compiled once for all tests of this process."""
    return BurstLibrary(kept_folder("bursts"))


class HostBurstDecoder(BurstDecoder):
    """A decoder of the host whose frames pass for those of a GPU's decoder."""

    def _frame(self, facts: Sequence[int]) -> BurstFrame:
        interlaced, kind, _, *others = facts
        return super()._frame([interlaced, _CUDA, kind, *others])


class RawPictures:
    """What `tests.unit.media_passes.raw` makes of a frame, made by a kernel: the bytes of its planes, in one row."""

    by_host = False

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu

    def recipe(self, frame: BurstFrame, orientation: int) -> Recipe:
        assert frame.sw_format is not None
        layout = VideoFormat(frame.sw_format.name, frame.width, frame.height)
        depth = (layout.components[0].bits + 7) // 8
        pointers, lines = frame.in_memory()
        planes = list(zip(layout.components, pointers, lines, strict=False))
        total = sum(part.width * depth * part.height for part, *_ in planes)

        def make(trace: Any) -> dict[str, Any]:
            row, at = trace.row((total,), total), 0
            for part, pointer, line in planes:
                given = np.zeros((), PLANE)
                given["pitch"], given["step"], given["width"], given["height"] = (
                    line,
                    1,
                    part.width * depth,
                    part.height,
                )
                given["stride_x"], given["stride_y"] = 1, part.width * depth
                kind = Kind("plane", given, (-(-part.width * depth // 128), part.height), (128, 1, 1), 2)
                trace.put(kind, (pointer, row.block.pointer + at))
                at += part.width * depth * part.height
            return {"pixels": row}

        return traced(self._gpu, make)


class HostBursts:
    """Decoders of the host that decode in bursts; `leases` are what was asked for."""

    def __init__(self, loop: BurstLibrary | None = None, gpu: Any = None) -> None:
        self._loop = loop or library()
        self.gpu = gpu or HostGpu()
        self.leases: list[bool] = []
        self.made: list[BurstDecoder] = []

    @contextmanager
    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> Iterator[VideoCodecContext | PartDecoder]:
        self.leases.append(bursts)
        if bursts:
            self.made.append(HostBurstDecoder(self._loop, self.gpu, like))
        yield Converting(self.made[-1], RawPictures(self.gpu).recipe) if bursts else like
