"""Writes files atomically: a file exists completely or not at all.

`PartFile` writes results, one process at a time; `atomic_write` writes small files of caches, which several processes
may write at once.
"""

import atexit
import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from av.error import FFmpegError

from schemas.errors import OutputError
from schemas.wire import Buffer

_HINTS = {
    errno.ENOSPC: "make room on the disk, or choose another --out",
    errno.EDQUOT: "make room in your quota, or choose another --out",
    errno.EFBIG: "the file system or a limit of the shell allows no larger file",
    errno.EWOULDBLOCK: "another rigflow is writing it: wait for it, or choose another --out",
    errno.ENOTDIR: "a file is in the way: choose another --out",
    errno.EEXIST: "a file is in the way: choose another --out",
    errno.ENAMETOOLONG: "rename the input, or choose another --out",
    errno.EISDIR: "a folder is in the way: choose another --out",
    errno.ELOOP: "a link is in the way: remove it, or choose another --out",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every failure to write `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "check that the folder exists and may be written")
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint) from error
    except FFmpegError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another format or --out") from error


_PENDING: "set[PartFile]" = set()


@atexit.register
def discard_all() -> None:
    """Remove unfinished files: a process that is interrupted twice ends without its `finally` blocks."""
    for file in tuple(_PENDING):
        file.discard()


class PartFile:
    """The file `<path>.part`, until `commit` renames it to `path` or `discard` removes it.

    A lock keeps two runs from writing to the same output. The file of a run that was killed is overwritten. A file that
    had the final name at `create` is replaced; one that was created later is kept, and `commit` fails.
    """

    def __init__(self, path: Path, part: Path, file: BinaryIO, replaces: bool) -> None:
        self.path = path
        self.file = file
        self._part = part
        self._replaces = replaces
        _PENDING.add(self)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open `<path>.part` for writing, and make its folder. Raises OutputError."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            name = path.with_name(f"{path.name}.part")
            # O_NOFOLLOW: a link that another user put there could make us overwrite any file of ours
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(name, flags, 0o666), "wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(name)):  # the other run committed it just now
                    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
                file.truncate(0)
            except OSError:
                file.close()
                raise
        return cls(path, name, file, os.path.lexists(path))

    def write(self, data: Buffer) -> None:
        """Append `data`. Raises OutputError."""
        with writing(self.path):
            self.file.write(data)

    def seal(self) -> None:
        """Close the file after the last write; `commit` follows later."""
        with writing(self.path):
            self.file.close()

    def call(self, path: Path) -> None:
        """Choose another final name in a folder of the same disk; a file that has it now is replaced."""
        self.path, self._replaces = path, os.path.lexists(path)

    def commit(self) -> Path:
        """Rename the file to its final name; replaces the file of that name at `create`. Raises OutputError."""
        with writing(self.path):
            self.put()
        return self.path

    def put(self) -> None:
        """Commit as `commit` does, but raise the OSError of the system."""
        if not self.file.closed:
            self.file.flush()
        rename(self._part, self.path, self._replaces)
        _PENDING.discard(self)
        self.file.close()

    def discard(self) -> None:
        """Remove the file; does nothing after `commit` or `discard`."""
        if self not in _PENDING:
            return
        _PENDING.discard(self)
        with suppress(OSError):  # the caller reports the error that led here, not this one
            self._part.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk does not matter for a file that is deleted
            self.file.close()


def atomic_write(path: Path, content: Buffer) -> None:
    """Write a file in one step; replaces an existing one, and makes its folder. Raises OSError.

    Several processes and threads may write the same file: the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    file = PartFile(path, part, part.open("wb"), replaces=True)
    try:
        file.file.write(content)
        file.put()
    finally:
        file.discard()


def delete_files(files: Iterable[Path], folder: Path) -> None:
    """Delete files, and `folder` if it is there and nothing else is in it."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def rename(source: Path, target: Path, replaces: bool) -> None:
    """Rename a file in one step. Raises FileExistsError when `target` exists and may not be replaced."""
    if not replaces:
        try:
            os.link(source, target)  # unlike a rename, it fails if a file exists
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        else:
            os.unlink(source)
            return
    os.replace(source, target)
