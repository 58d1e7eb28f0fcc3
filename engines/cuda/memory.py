"""Memory of a GPU, and pinned memory of the host: blocks that return to their pool after their last use.

After the first batches no memory is allocated; `Counters.allocations` shows it.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.part import Array

_LEAST_BYTES = 512
_ALIGNED = 256
SLAB_ROW_BYTES = 64 << 10  # smaller rows share blocks


def aligned(nbytes: int) -> int:
    """Bytes from the begin of one row in a shared block to that of the next."""
    return -(-nbytes // _ALIGNED) * _ALIGNED


@dataclass(slots=True)
class Counters:
    """Counters of copies, allocations and decoding; never reset."""

    allocations: int = 0
    allocated_bytes: int = 0
    to_gpu_bytes: int = 0
    from_gpu_bytes: int = 0
    on_gpu_segments: int = 0  # decoded by the GPU
    on_host_segments: int = 0  # decoded by the host, because the GPU cannot
    irregular_segments: int = 0  # read again frame by frame, because a burst of frames was not as expected


class Block:
    """Memory at `pointer`, at least `nbytes`; it returns to its pool when the last reference to it is gone."""

    __slots__ = ("__weakref__", "buffer", "nbytes", "pointer")

    def __init__(self, pointer: int, nbytes: int, buffer: Any) -> None:
        self.pointer = pointer
        self.nbytes = nbytes
        self.buffer = buffer

    def host(self, dtype: Any, shape: Sequence[int]) -> Array:
        """Return pinned memory as an array, valid while the block is held."""
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        array: Array = self.buffer[:count].view(dtype).reshape(shape)
        return array


class Pool:
    """Blocks by size class, eight to a power of two. Any thread may take a block or release one."""

    def __init__(self, allocate: Callable[[int], tuple[int, Any]], counters: Counters) -> None:
        self._allocate = allocate
        self._counters = counters
        self._free: defaultdict[int, list[tuple[int, Any]]] = defaultdict(list)
        self._lock = threading.RLock()  # a block may be released while the same thread takes one
        self._closed = False

    def take(self, nbytes: int) -> Block:
        """Return a block of at least `nbytes`; its content is undefined."""
        size = _size_class(nbytes)
        with self._lock:
            waiting = self._free[size]
            pointer, buffer = waiting.pop() if waiting else self._fresh(size)
        block = Block(pointer, size, buffer)
        weakref.finalize(block, self._back, size, pointer, buffer)
        return block

    def close(self) -> None:
        """Free the blocks that are not held now, and the others when they are released."""
        with self._lock:
            self._closed = True
            self._free.clear()

    def _fresh(self, size: int) -> tuple[int, Any]:
        self._counters.allocations += 1
        self._counters.allocated_bytes += size
        return self._allocate(size)

    def _back(self, size: int, pointer: int, buffer: Any) -> None:
        with self._lock:
            if not self._closed:
                self._free[size].append((pointer, buffer))


def _size_class(nbytes: int) -> int:
    if nbytes <= _LEAST_BYTES:
        return _LEAST_BYTES
    step = max(_LEAST_BYTES, 1 << (nbytes.bit_length() - 4))
    return -(-nbytes // step) * step
