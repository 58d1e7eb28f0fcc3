"""One GPU in one process: its primary context, kernels, memory, and counters of copies.

ONNX Runtime, TensorRT and FFmpeg share the primary context. It is set to sleep, instead of spin, while it waits for the
GPU, before another library can set it otherwise. A worker opens it after its start, never at import.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from engines.cuda.driver_calls import CallFailed, DriverCalls
from engines.cuda.kernels import Kernels, image_for
from engines.cuda.memory import Counters, Pool
from engines.machine import find_gpu
from schemas.errors import DeviceLost

T = TypeVar("T")
_SLEEP = 4  # CU_CTX_SCHED_BLOCKING_SYNC, cuda.h
_CUDA = 2  # kDLCUDA, dlpack.h
_APART = 1  # CU_STREAM_NON_BLOCKING: a stream that does not wait for the null stream, on which FFmpeg copies


class CudaGpu:
    """An open GPU. Threads call `enter` before they use it; only the code that opened it calls `close`."""

    def __init__(self, name: str, cache: Path) -> None:
        self.number, self.facts = find_gpu(name)
        self.name = name
        self.dlpack_device = (_CUDA, self.number)
        self._here = threading.local()
        self.capturing = threading.Lock()  # while a stream is recorded CUDA refuses to wait for the whole GPU
        self.works_on_media = False
        _set_flags(self.number)
        import pycuda.driver as driver

        self.driver: Any = driver
        self._entered: list[Any] = []
        try:
            driver.init()
            self._context = driver.Device(self.number).retain_primary_context()
            self.enter()
            image = image_for(self.facts.capability, cache)
            self.kernels = Kernels(image, driver)
            self.calls = DriverCalls(image)
        except (driver.Error, CallFailed) as error:
            raise DeviceLost(f"device {name} cannot be opened: {error}", "see nvidia-smi") from error
        self.counters = Counters()
        self.memory = Pool(self._allocate, self.counters)
        self.pinned = Pool(self._allocate_pinned, self.counters)

    def enter(self) -> None:
        """Make the GPU's context this thread's own; a second call does nothing."""
        if not getattr(self._here, "inside", False):
            self._context.push()
            self._here.inside = True

    def leave(self) -> None:
        """Undo `enter` before a thread ends: pycuda ends the process if a thread ends with a context."""
        if getattr(self._here, "inside", False):
            self._here.__dict__.pop("stream", None)
            self._context.pop()
            self._here.inside = False

    def stream(self) -> Any:
        """Return this thread's stream, created once."""
        self.enter()
        if not hasattr(self._here, "stream"):
            self._here.stream = self.new_stream()
        return self._here.stream

    def new_stream(self) -> Any:
        """Create a stream that does not wait for others."""
        return self.driver.Stream(_APART)

    def event(self) -> Any:
        """Create an event whose wait does not spin; it has no time stamps."""
        flags = self.driver.event_flags
        return self.driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Map a failure of the GPU to DeviceLost: this process can no longer use the GPU after it."""
        try:
            yield
        except (self.driver.Error, CallFailed) as error:
            raise self.lost(error) from error

    def lost(self, error: object) -> DeviceLost:
        """Return the error for a GPU that failed."""
        return DeviceLost(
            f"device {self.name} failed: {' '.join(str(error).split())[:200]}", "see dmesg for Xid errors"
        )

    def works(self) -> bool:
        """Return whether the context still works: after an error this distinguishes a bad input from a poisoned
        context.
        """
        try:
            self.synchronize()
        except self.driver.Error:
            return False
        return True

    def begin_work(self) -> None:
        """Called before this process decodes or computes parts: from then on, no stream is recorded any more.

        Calls of several threads beside a recording have made cuDNN fail in it, and a process hang (H200, CUDA 13).
        """
        if not self.works_on_media:
            with self.capturing:
                self.works_on_media = True

    def synchronize(self) -> None:
        """Wait for all that this process has queued on the GPU."""
        self.enter()
        with self.capturing:
            self.driver.Context.synchronize()

    def upload(self, pointer: int, host: Any, stream: Any) -> None:
        """Queue a copy of a pinned array to the GPU, and count it."""
        self.counters.to_gpu_bytes += host.nbytes
        self.driver.memcpy_htod_async(pointer, host, stream)

    def download(self, host: Any, pointer: int, stream: Any) -> None:
        """Queue a copy from the GPU to a pinned array, and count it."""
        self.counters.from_gpu_bytes += host.nbytes
        self.driver.memcpy_dtoh_async(host, pointer, stream)

    def used_bytes(self) -> int:
        """Return the memory of the GPU that all processes use."""
        self.enter()
        free, total = self.driver.mem_get_info()
        return int(total - free)

    def close(self) -> None:
        """Free all memory; blocks that are still held become invalid."""
        self.enter()
        self.driver.Context.synchronize()
        self.memory.close()
        self.pinned.close()
        if hasattr(self._here, "stream"):
            del self._here.stream
        del self.kernels
        self.leave()

    def _allocate(self, nbytes: int) -> tuple[int, Any]:
        block = self.driver.mem_alloc(nbytes)
        return int(block), block

    def _allocate_pinned(self, nbytes: int) -> tuple[int, Any]:
        import numpy as np

        block = self.driver.pagelocked_empty(nbytes, np.uint8)
        return block.ctypes.data, block


def _set_flags(number: int) -> None:
    """Make waits of the primary context sleep. If another library created the context already, it is used unchanged."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device = ctypes.c_int()
    calls: tuple[Callable[[], int], ...] = (
        lambda: int(cuda.cuInit(0)),
        lambda: int(cuda.cuDeviceGet(ctypes.byref(device), number)),
        lambda: int(cuda.cuDevicePrimaryCtxSetFlags_v2(device, _SLEEP)),
    )
    for call in calls:
        if call() != 0:
            return
