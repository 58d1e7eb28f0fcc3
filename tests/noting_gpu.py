"""A GPU that launches nothing: for what the code around own kernels does with memory and streams."""

from types import SimpleNamespace
from typing import Any

from tests.host_gpu import HostGpu


class NotingGpu(HostGpu):
    """`launched` counts the launches of all functions."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0
        known = SimpleNamespace(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=99 << 10, MULTIPROCESSOR_COUNT=108)
        self.driver = SimpleNamespace(
            Context=SimpleNamespace(get_device=lambda: SimpleNamespace(get_attribute=lambda value: value)),
            device_attribute=known,
            function_attribute=SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES=8),
            module_from_buffer=lambda image: SimpleNamespace(get_function=lambda name: _Function(self)),
            MemoryError=MemoryError,
        )


class _Function:
    def __init__(self, gpu: NotingGpu) -> None:
        self._gpu = gpu

    def set_attribute(self, attribute: int, value: int) -> None: ...

    def __call__(self, given: Any, **_: Any) -> None:
        self._gpu.launched += 1
