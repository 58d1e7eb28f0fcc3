"""Folders that all tests of a process share; they are removed when its tests end, or else when it ends."""

import atexit
import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

_made: list[tuple[int, Path]] = []


def kept_folder(what: str) -> Path:
    """A new folder of this process; those that are forked from it leave it where it is."""
    folder = Path(mkdtemp(prefix=f"rigflow-{what}-"))
    _made.append((os.getpid(), folder))
    return folder


@atexit.register
def remove_kept_folders() -> None:
    """Remove the folders that this process made. Processes of `pytest -n` end without the functions of `atexit`."""
    for owner, folder in _made:
        if owner == os.getpid():
            rmtree(folder, ignore_errors=True)
