"""Writes small files atomically, for files that other processes read at any time."""

import os
import threading
from contextlib import suppress
from pathlib import Path


def atomic_write(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a file in one step; replaces an existing one, and makes its folder. Raises OSError.

    Several processes and threads may write the same file: the last one wins. `sync`: on return the content is on the
    disk and survives a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):  # the first error is the one to report
            unfinished.unlink()
        raise
