"""Small files that others read while they are written: whole or not at all."""

import os
import threading
from contextlib import suppress
from pathlib import Path


def atomic_write(path: Path, content: bytes, sync: bool = False) -> None:
    """Give `path` this content in one step, over what was there; its folder is made. Raises OSError.

    Several processes and threads may write the same file: one of them wins. `sync`: it is on the disk on return, and
    outlives a loss of power.
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
        with suppress(OSError):  # what stands in the way is told above all
            unfinished.unlink()
        raise
