"""TensorRT's Python bindings, whichever are installed: `tensorrt` 8.6, 10 and 11, or `tensorrt_rtx`."""

from importlib import import_module
from typing import Any, Literal

from schemas.errors import UsageError

Backend = Literal["tensorrt", "tensorrt_rtx"]
BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt_rtx")

# DataType's names -> NumPy's; its own `nptype` knows no BF16, and fails instead of telling
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


def installed(backend: Backend) -> bool:
    """Whether this backend's bindings can be imported here."""
    try:
        import_module(backend)
    except ImportError:
        return False
    return True


def load(backend: Backend) -> Any:
    """The bindings' module. Raises UsageError when it is not installed."""
    try:
        return import_module(backend)
    except ImportError as error:
        wheel = "tensorrt-rtx" if backend == "tensorrt_rtx" else "tensorrt"
        raise UsageError(f"{backend} cannot be imported: {error}", f"install {wheel}; see docs/engines.md") from error


def collecting_logger(trt: Any, messages: list[str]) -> Any:
    """A logger that appends what the library calls an error to `messages`, and prints nothing."""

    class Collecting(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                messages.append(message)

    logger = Collecting.__new__(Collecting)
    trt.ILogger.__init__(logger)
    return logger
