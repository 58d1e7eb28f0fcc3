"""Calls of CUDA's driver that pycuda does not have: by address, for `burst.c`, and of CUDA graphs."""

import ctypes
from typing import Any

_EVENT = 1 | 2  # CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING: waiting sleeps, and there are no time stamps
_CALLS = {"launch": "cuLaunchKernel", "record": "cuEventRecord", "wait": "cuStreamWaitEvent"}
_CALLS |= {"finish": "cuEventSynchronize"}
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads call of CUDA meanwhile is not restricted


class CallFailed(Exception):
    """A call of the driver failed; the text has its number."""


class DriverCalls:
    """The driver's functions, and the kernels of `image` as it names them. The GPU's context is current."""

    def __init__(self, image: bytes) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self.addresses = {name: _address(getattr(self._cuda, symbol)) for name, symbol in _CALLS.items()}
        self._module = ctypes.c_void_p()
        self._check(self._cuda.cuModuleLoadData(ctypes.byref(self._module), image))
        self._functions: dict[str, int] = {}

    def function(self, name: str) -> int:
        """Return a kernel. Raises CallFailed."""
        if name not in self._functions:
            found = ctypes.c_void_p()
            self._check(self._cuda.cuModuleGetFunction(ctypes.byref(found), self._module, name.encode()))
            self._functions[name] = found.value or 0
        return self._functions[name]

    def new_event(self) -> int:
        """Create an event. Raises CallFailed."""
        made = ctypes.c_void_p()
        self._check(self._cuda.cuEventCreate(ctypes.byref(made), _EVENT))
        return made.value or 0

    def end_event(self, event: int) -> None:
        """Destroy an event."""
        self._cuda.cuEventDestroy_v2(ctypes.c_void_p(event))

    def begin_capture(self, stream: int) -> None:
        """From now on, record what this thread queues on a stream, instead of running it. Raises CallFailed."""
        self._check(self._cuda.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), _THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        """Return what was recorded, as a graph that can be launched. Raises CallFailed, also if a call spoilt it."""
        recorded, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(recorded)))
        status = self._cuda.cuGraphInstantiateWithFlags(ctypes.byref(graph), recorded, ctypes.c_ulonglong(0))
        self._cuda.cuGraphDestroy(recorded)
        self._check(status)
        return graph.value or 0

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue a graph on a stream, from any thread. Raises CallFailed."""
        self._check(self._cuda.cuGraphLaunch(ctypes.c_void_p(graph), ctypes.c_void_p(stream)))

    def end_graph(self, graph: int) -> None:
        """Destroy a graph; one that runs ends first."""
        self._cuda.cuGraphExecDestroy(ctypes.c_void_p(graph))

    def _check(self, status: int) -> None:
        if status:
            raise CallFailed(f"CUDA error {status}")


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
