"""What the kernels that a thread has queued still need: frames and blocks, and frames that are resized together."""

import threading
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from engines.cuda.arrays import GpuRow
from engines.cuda.pictures import Place
from engines.cuda.resampling import Resampler

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

HELD_FRAMES = 4  # a thread's decoder waits while kernels still read so many of its surfaces
_WAITING_BYTES = 64 << 20  # of frames that a thread resizes together at most
_Frames: TypeAlias = dict[tuple[Resampler, tuple[int, ...], Place], list[tuple[GpuRow, GpuRow]]]


class Held:
    """Frames and blocks that kernels still read; each thread holds a few."""

    def __init__(self, gpu: "CudaGpu") -> None:
        self._gpu = gpu
        self._here = threading.local()

    def add(self, thing: Any) -> None:
        """Keep a frame or a block until the kernels queued so far have read it."""
        event = self._gpu.event()
        event.record(self._gpu.stream())
        held = self._mine()
        held.append((event, thing))
        while len(held) > HELD_FRAMES:
            held.pop(0)[0].synchronize()

    def clear(self) -> None:
        """Release everything of this thread."""
        self._mine().clear()

    def _mine(self) -> list[tuple[Any, Any]]:
        if not hasattr(self._here, "held"):
            self._here.held = []
        return cast(list[tuple[Any, Any]], self._here.held)


class Waiting:
    """Frames that each thread will resize together: pixels at their own size, and where they go."""

    def __init__(self, gpu: "CudaGpu", held: Held) -> None:
        self._gpu, self._held = gpu, held
        self._here = threading.local()

    def add(self, resampler: Resampler, native: GpuRow, row: GpuRow, place: Place) -> None:
        """Resize `native` into `row` at the next `flush`, which comes here if many bytes wait."""
        waiting = self._mine()
        waiting.setdefault((resampler, native.shape, place), []).append((native, row))
        if sum(each.nbytes for pairs in waiting.values() for each, _ in pairs) >= _WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Queue all resizes of this thread, those of one kind together."""
        waiting = self._mine()
        for (resampler, _, place), pairs in waiting.items():
            targets = [row.block.pointer + place.begin for _, row in pairs]
            used = resampler.queue([native for native, _ in pairs], targets, place, self._gpu.stream())
            self._held.add((used, pairs))
        waiting.clear()

    def _mine(self) -> _Frames:
        if not hasattr(self._here, "waiting"):
            self._here.waiting = {}
        return cast(_Frames, self._here.waiting)
