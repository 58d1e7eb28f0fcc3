"""Loads TensorRT's Python bindings: `tensorrt` 8.6, 10 and 11, or `tensorrt_rtx`."""

from importlib import import_module
from typing import Any

from schemas.errors import UsageError

WHEELS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}  # module -> wheel: nothing else is imported by name

# names of DataType -> those of NumPy; its own `nptype` fails for BF16
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


def installed(backend: str) -> bool:
    """Return whether this backend's bindings can be imported here."""
    try:
        load(backend)
    except UsageError:
        return False
    return True


def load(backend: str) -> Any:
    """The bindings' module. Raises UsageError when it is not installed, or the name is of no such module."""
    if backend not in WHEELS:
        raise UsageError(f"{backend} is no TensorRT", f"there are {', '.join(WHEELS)}")
    try:
        return import_module(backend)
    except ImportError as error:
        hint = f"install {WHEELS[backend]}; see docs/engines.md"
        raise UsageError(f"{backend} cannot be imported: {error}", hint) from error


def collecting_logger(trt: Any, messages: list[str]) -> Any:
    """Return a logger that appends the library's error messages to `messages` and prints nothing."""

    class Collecting(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                messages.append(message)

    logger = Collecting.__new__(Collecting)
    trt.ILogger.__init__(logger)
    return logger
