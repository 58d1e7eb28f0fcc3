"""Reads images that are sent as paths: files in folders that publisher and workers both can read."""

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from engines.media.container import open_regular
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.sniff import HEAD_BYTES, image_format
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.media import Item

_MOST_BYTES_PER_PIXEL = 8  # RGBA of 16 bits, not compressed
_SMALL_BYTES = 64 << 10  # a smaller file is read at once, without a check of its content
_NOT_SHARED = "its path is in no folder that this worker shares: add the folder to the worker's setting shared"
_NO_NAMES = frozenset(("", ".", ".."))  # a path that ends so names a folder
RealFolder: TypeAlias = Callable[[str], str]  # a folder -> its path with links resolved, and a `/` at its end


@dataclass(frozen=True, slots=True)
class SharedFolders:
    """The folders, links resolved, each with a `/` at its end.

    A file is in a folder by its real path, not by the path of a link to it.
    """

    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, folders: Iterable[str]) -> Self:
        """Return the folders that settings name."""
        return cls(tuple(map(_real_folder, folders)))

    def hold(self, path: str) -> bool:
        """Return whether the file at `path`, links resolved, is in one of the folders."""
        return path.startswith(self.folders)

    def read(self, items: Sequence[Item], limits: Limits) -> Iterator[tuple[Item, bytes]]:
        """Read as `read_image` does, each item of a message that has no error yet; opens only files in the folders."""
        real = functools.cache(_real_folder)
        for item in items:
            yield (item, b"") if item.error else self._read(item, real, limits)

    def _read(self, item: Item, real: RealFolder, limits: Limits) -> tuple[Item, bytes]:
        """Read one item. The path is first assumed to be no link: asking for each file costs a tenth of decoding it."""
        try:
            path = _in_real_folder(item.path, real)
            if self.hold(path):
                found, data = read_image(item, path, limits)
                if not found.error or not os.path.islink(path):
                    return found, data
            path = os.path.realpath(item.path)
            if self.hold(path):
                return read_image(item, path, limits)
        except ValueError:  # no file name has a zero byte
            pass
        return item.model_copy(update={"error": _NOT_SHARED}), b""


NO_FOLDERS = SharedFolders()


def located(paths: Iterable[str]) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield each path with links resolved, and the system's status of the file; None if there is no such file.

    Resolving a path costs more than reading a small file; therefore each folder is resolved once.
    """
    real = functools.cache(_real_folder)
    for path in paths:
        try:
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                yield _in_real_folder(path, real), found
            else:
                yield os.path.realpath(path), os.stat(path)
        except (OSError, ValueError):  # ValueError: no file name has a zero byte
            yield "" if "\0" in path else os.path.realpath(path), None


def _in_real_folder(path: str, real: RealFolder) -> str:
    """Return the path of a file that is no link, with the links of its folder resolved."""
    folder, slash, name = path.rpartition("/")
    return os.path.realpath(path) if name in _NO_NAMES else real(folder + slash) + name


def _real_folder(path: str) -> str:
    return os.path.join(os.path.realpath(path), "")


def read_image(item: Item, path: str, limits: Limits = DEFAULT_LIMITS) -> tuple[Item, bytes]:
    """Return the item and the content of its file. If the file cannot be read, the item has the error and no content.

    `path` has its links resolved; a link that was created there since is not followed. Of a large file that is no image
    only the first bytes are read: decode rejects them.
    """
    try:
        file, size = open_regular(path, os.O_NOFOLLOW)
        try:
            return item, _content(file, size, limits)
        finally:
            os.close(file)
    except OSError as error:
        return item.model_copy(update={"error": f"cannot read {path}: {error.strerror or 'a directory'}"}), b""
    except RigflowError as error:
        return item.model_copy(update={"error": str(error)}), b""


def _content(file: int, size: int, limits: Limits) -> bytes:
    """Return the content of an open file of `size` bytes. Raises OSError, MediaError, ItemTooLarge."""
    data = os.read(file, size if size <= _SMALL_BYTES else HEAD_BYTES)
    if not data:
        raise MediaError("the file is empty", "copy it again")
    if size > len(data) and image_format(data) is None:
        return data
    most = limits.pixels * _MOST_BYTES_PER_PIXEL
    if size > most:
        raise ItemTooLarge(
            f"the file has {size} bytes, more than {most}", "scale it down or raise the setting max_pixels"
        )
    if size > len(data):
        data = os.pread(file, size, 0)  # a file object would double the cost
        while len(data) < size and (more := os.pread(file, size - len(data), len(data))):  # a read may end early
            data += more
    return data
