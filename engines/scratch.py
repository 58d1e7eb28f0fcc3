"""Folders for temporary files of one process. Those of processes that were killed are removed by the others.

A lock on a file in a folder shows that its process lives: the system gives it up however the process ends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".temporary"  # no folder that a person chose has such a file


class ScratchFolder:
    """A new folder `rigflow-KIND-...` in the folder for temporary files; `remove` ends it. Raises OSError."""

    def __init__(self, kind: str) -> None:
        remove_left()
        self.path = Path(tempfile.mkdtemp(prefix=f"rigflow-{kind}-"))
        begun = self.path / f"{_LOCK}-begun"
        self._lock = os.open(begun, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        begun.rename(self.path / _LOCK)  # it is locked when others see it

    def remove(self) -> None:
        """Remove the folder; a second time has no effect."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A `ScratchFolder` for the time of the block. Raises OSError."""
    folder = ScratchFolder(kind)
    try:
        yield folder.path
    finally:
        folder.remove()


def remove_left(within: str = "") -> None:
    """Remove the folders of processes that have ended, in a folder; "": in that for temporary files."""
    for left in Path(within or tempfile.gettempdir()).glob(f"rigflow-*/{_LOCK}"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
            finally:
                os.close(lock)
