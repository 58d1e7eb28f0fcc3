"""Files that appear whole or not at all."""

import atexit
import errno
import fcntl
import os
from collections.abc import Iterator
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
    """Turns every failure to write `path` into an OutputError of one line."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "check that the folder exists and may be written")
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint) from error
    except FFmpegError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another format or --out") from error


_PENDING: "set[PartFile]" = set()


@atexit.register
def _discard_all() -> None:
    """Who is interrupted twice leaves without tidying up."""
    for file in tuple(_PENDING):
        file.discard()


class PartFile:
    """`<path>.part`, until `commit` gives it its name in one step or `discard` removes it.

    It is locked, so that two runs with one output cannot mix their bytes; what a killed run left is written over. A
    file that had the name at `create` is replaced; one that came since is kept, and `commit` fails.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self._replaces = os.path.lexists(path)
        _PENDING.add(self)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Opens `<path>.part` for writing, and makes its folder. Raises OutputError when that cannot be."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            name = _part_name(path)
            # a link that another user put there would have us write over any file of ours
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(name, flags, 0o666), "wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(name)):  # it was committed just now
                    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
                file.truncate(0)
            except OSError:
                file.close()
                raise
        return cls(path, file)

    def write(self, data: Buffer) -> None:
        """Appends `data`. Raises OutputError."""
        with writing(self.path):
            self.file.write(data)

    def seal(self) -> None:
        """Ends writing and gives the descriptor back, for those who keep many; `commit` is still to come."""
        with writing(self.path):
            self.file.close()

    def commit(self) -> Path:
        """Gives the file its final name, over what was there at `create`. Raises OutputError."""
        with writing(self.path):
            if not self.file.closed:
                self.file.flush()
            _rename(_part_name(self.path), self.path, self._replaces)
            _PENDING.discard(self)
            self.file.close()
        return self.path

    def discard(self) -> None:
        """Removes the file; nothing happens when it is committed or discarded already."""
        if self not in _PENDING:
            return
        _PENDING.discard(self)
        _part_name(self.path).unlink(missing_ok=True)
        with suppress(OSError):  # what is thrown away need not fit on the disk
            self.file.close()


def _rename(source: Path, target: Path, replaces: bool) -> None:
    """Renames a file in one step. Raises FileExistsError where `target` is there and may not be replaced."""
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


def _part_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
