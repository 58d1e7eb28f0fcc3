"""Images that travel as paths: files in folders that publisher and workers both see."""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engines.media.container import open_file
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.sniff import HEAD_BYTES, image_format
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.messages import Item

_MOST_BYTES_PER_PIXEL = 8  # RGBA of 16 bits, not compressed
_NOT_SHARED = "its path is in no folder that this worker shares: add the folder to the worker's setting shared"
_NO_NAMES = frozenset(("", ".", ".."))  # at the end of a path, they are of a folder


@dataclass(frozen=True, slots=True)
class SharedFolders:
    """The folders, links resolved, each with a `/` at its end.

    A file counts as in a folder by its own place, not by that of a link to it.
    """

    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, folders: Iterable[str]) -> Self:
        """The folders as settings name them."""
        return cls(tuple(map(_real_folder, folders)))

    def hold(self, path: str) -> bool:
        """Whether the file at `path`, links resolved, is in one of the folders."""
        return path.startswith(self.folders)

    def read(self, items: Sequence[Item], limits: Limits) -> Iterator[tuple[Item, bytes]]:
        """As `read_image`, for each item of a message that has no error yet: only files in the folders are opened."""
        for item, path in zip(items, resolved(item.path for item in items), strict=True):
            if item.error:
                yield item, b""
            elif self.hold(path):
                yield read_image(item, path, limits)
            else:
                yield item.model_copy(update={"error": _NOT_SHARED}), b""


NO_FOLDERS = SharedFolders()


def resolved(paths: Iterable[str | Path]) -> Iterator[str]:
    """Each path with links resolved; empty for a path that no file can have.

    To resolve a path costs more than to read a small file, so that each folder is resolved once.
    """
    real = functools.cache(_real_folder)
    for path in map(str, paths):
        folder, slash, name = path.rpartition("/")
        try:
            yield os.path.realpath(path) if name in _NO_NAMES or os.path.islink(path) else real(folder + slash) + name
        except ValueError:  # no file's name has a zero byte in it
            yield ""


def _real_folder(path: str) -> str:
    return os.path.join(os.path.realpath(path), "")


def read_image(item: Item, path: str, limits: Limits = DEFAULT_LIMITS) -> tuple[Item, bytes]:
    """The item and the content of its file at `path`; if that cannot be read, the item with the error, and no content.

    Of a file that is no image only the first bytes are read: decode rejects them.
    """
    try:
        with open_file(path) as file:
            head = os.pread(file, HEAD_BYTES, 0)
            if not head:
                raise MediaError("the file is empty", "copy it again")
            if image_format(head) is None:
                return item, head
            most, size = limits.pixels * _MOST_BYTES_PER_PIXEL, os.fstat(file).st_size
            if size > most:
                raise ItemTooLarge(
                    f"the file has {size} bytes, more than {most}", "scale it down or raise the setting max_pixels"
                )
            return item, _read(file, size)
    except OSError as error:
        return item.model_copy(update={"error": f"cannot read {path}: {error.strerror or 'a directory'}"}), b""
    except RigflowError as error:
        return item.model_copy(update={"error": str(error)}), b""


def _read(file: int, size: int) -> bytes:
    """The first `size` bytes of a file, or all where it is shorter. A file object would double what this costs."""
    data = os.read(file, size)
    while len(data) < size and (more := os.read(file, size - len(data))):  # a read may end early
        data += more
    return data
