"""Calls of CUDA's driver by address, for `burst.c`, which makes them without the interpreter."""

import ctypes
from typing import Any

_EVENT = 1 | 2  # CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING: waiting sleeps, and there are no time stamps
_CALLS = {"launch": "cuLaunchKernel", "record": "cuEventRecord", "wait": "cuStreamWaitEvent"}
_CALLS |= {"finish": "cuEventSynchronize"}


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

    def _check(self, status: int) -> None:
        if status:
            raise CallFailed(f"CUDA error {status}")


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
