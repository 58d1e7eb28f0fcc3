"""Folders for temporary files of one process. Those of processes that were killed are removed by the next one."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_LOCK = ".lock"


class ScratchFolder:
    """A new folder `rigflow-KIND-...` in the folder for temporary files; `remove` ends it.

    A lock on a file in it shows that its process lives: the system gives it up when the process ends, however it ends.
    """

    def __init__(self, kind: str) -> None:
        prefix = f"rigflow-{kind}-"
        _remove_left(Path(tempfile.gettempdir()), prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the folder; a second time has no effect."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove folders whose process has ended; one that has no lock yet is just being made."""
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
