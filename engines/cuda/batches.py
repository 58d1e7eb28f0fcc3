"""What a thread queues for several frames at once: one launch for all frames of a kind, and one event for all of it.

A call of the driver costs some microseconds, during which the thread keeps the interpreter's lock, and longer while a
decoder is inside the driver. Therefore frames wait here until a part is complete, or enough of them wait.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engines.cuda.arrays import GpuRow
from engines.cuda.kernels import MOST_FRAMES
from engines.cuda.kinds import Kind, fill_kind
from engines.cuda.memory import SLAB_ROW_BYTES, Block, aligned
from engines.cuda.pictures import Place
from engines.cuda.resampling import Resampler

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_WAITING_BYTES = 48 << 20  # of frames and of pixels at their own size that a thread converts together at most
_IN_FLIGHT = 1  # launches of frames whose memory a thread's decoder gets back only when they are over


class Work:
    """What is launched for frames: kernels that fill rows, make pictures and resize them, in order for each frame."""

    def row(self, shape: tuple[int, ...], nbytes: int) -> GpuRow:
        """Return memory for a picture."""
        raise NotImplementedError

    def put(self, kind: Kind, addresses: tuple[int, ...]) -> None:
        """Launch a kernel for one more frame, after those that were put before for it."""
        raise NotImplementedError

    def hold(self, thing: Any, nbytes: int = 0) -> None:
        """Keep a frame or a block until what is queued now has run."""
        raise NotImplementedError

    def fill(self, row: GpuRow, value: int) -> None:
        """Set all bytes of a row."""
        self.put(fill_kind(row.nbytes, value), (row.block.pointer,))

    def resize(self, resampler: Resampler, native: GpuRow, row: GpuRow, place: Place) -> None:
        """Resize the pixels of `native` into `row`."""
        source = native.block.pointer
        for kind, nbytes in resampler.passes(native.shape, place):
            target = self.row((nbytes,), nbytes).block.pointer if nbytes else row.block.pointer + place.begin
            self.put(kind, (source, target))
            source = target
        self.hold(native, native.nbytes)


class Batches(Work, threading.local):
    """The work of one thread: each that uses an instance has its own, and its own stream."""

    def __init__(self, gpu: "CudaGpu") -> None:
        self._gpu = gpu
        self._held: list[Any] = []
        self._bytes = 0
        self._in_flight: deque[tuple[Any, list[Any]]] = deque()
        self._slabs: dict[int, tuple[Block, Iterator[int]]] = {}  # bytes of a row -> a block, and where free rows begin
        self._empty()

    def _empty(self) -> None:
        self._kinds: dict[Kind, list[int]] = {}  # in the order in which frames need them
        self._full = False

    def row(self, shape: tuple[int, ...], nbytes: int) -> GpuRow:
        """Return memory for a picture, which is held until what is queued now has run."""
        block = self._gpu.memory.take(nbytes) if nbytes >= SLAB_ROW_BYTES else self._of_slab(nbytes)
        row = GpuRow(self._gpu, block, shape)
        self._held.append(row)
        return row

    def _of_slab(self, nbytes: int) -> Block:
        slab, free = self._slabs.get(nbytes) or (None, iter(()))
        pointer = next(free, None)
        if slab is None or pointer is None:
            step = aligned(nbytes)
            slab = self._gpu.memory.take(step * MOST_FRAMES)
            free = iter(range(slab.pointer, slab.pointer + step * MOST_FRAMES, step))
            self._slabs[nbytes] = slab, free
            pointer = next(free)
        return Block(pointer, nbytes, slab)

    def hold(self, thing: Any, nbytes: int = 0) -> None:
        """Keep a frame or a block until what is queued now has run."""
        self._held.append(thing)
        self._bytes += nbytes

    def put(self, kind: Kind, addresses: tuple[int, ...]) -> None:
        """Launch a kernel for one more frame, after those that were put before for it."""
        waiting = self._kinds.get(kind)
        if waiting is None:
            waiting = self._kinds[kind] = []
        waiting += addresses
        if len(waiting) >= MOST_FRAMES * kind.each:
            self._full = True

    def flush_full(self) -> None:
        """Queue what waits if one more frame does not fit. Called between frames, so that none is queued in part."""
        if self._full or self._bytes >= _WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Queue all that waits, after the decoder's copies: FFmpeg copies its surfaces on the null stream."""
        if not self._held:
            return
        gpu, stream = self._gpu, self._gpu.stream()
        decoded = gpu.event()
        decoded.record()
        stream.wait_for_event(decoded)
        for kind, addresses in self._kinds.items():
            kind.launch(gpu, addresses, stream)
        over = gpu.event()
        over.record(stream)
        self._in_flight.append((over, self._held))
        self._held, self._bytes = [], 0
        self._empty()
        while len(self._in_flight) > _IN_FLIGHT:
            self._in_flight[0][0].synchronize()  # before the frames go: they are the decoder's again then
            self._in_flight.popleft()

    def synchronize(self) -> None:
        """Wait until all of this thread is done; nothing is held after that."""
        if not self._held and not self._in_flight:
            return
        self.flush()
        self._gpu.stream().synchronize()
        self._in_flight.clear()
