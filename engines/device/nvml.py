"""NVIDIA's management library: sensors, limits of power and faults of GPUs, without a CUDA context."""

import importlib
from collections.abc import Callable
from typing import Any

LOST, RESET_REQUIRED, NOT_FOUND = 15, 16, 6  # of nvmlReturn_t
NO_PERMISSION, TIMEOUT = 4, 10


def open_nvml() -> Any | None:
    """The module `pynvml`, initialised; None on a machine without an NVIDIA driver, or without the extra `gpu`.

    Every call needs one `nvmlShutdown` of its own.
    """
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # NVMLError is known only to the module that may be missing
        return None
    return nvml


def answer_of(nvml: Any, ask: Callable[..., Any], *given: Any) -> Any:
    """The answer of NVML; None where this GPU or this driver has none."""
    try:
        return ask(*given)
    except nvml.NVMLError:
        return None


def code_of(error: Exception) -> int:
    """The number of an NVMLError; 0 if it has none."""
    value = getattr(error, "value", 0)
    return value if isinstance(value, int) else 0
