"""Images that travel as paths: files in folders that publisher and workers both see."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from engines.media.container import open_file
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.source import image_codec
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.messages import Item

_HEAD_BYTES = 12
_MOST_BYTES_PER_PIXEL = 8  # RGBA of 16 bits, not compressed


@dataclass(frozen=True, slots=True)
class SharedFolders:
    """The folders, links resolved. A file counts as in a folder by its own place, not by that of a link to it."""

    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, folders: Iterable[str]) -> Self:
        """The folders as settings name them."""
        return cls(tuple(os.path.realpath(folder) for folder in folders))

    def hold(self, path: str) -> bool:
        """Whether the file at `path`, links resolved, is in one of the folders."""
        return any(path.startswith(folder.rstrip("/") + "/") for folder in self.folders)

    def read(self, item: Item, limits: Limits) -> tuple[Item, bytes]:
        """As `read_image`, for a path in a message: only files in the folders are opened."""
        try:
            path = os.path.realpath(item.path)
        except ValueError:  # no file's name has a zero byte in it
            path = ""
        if not self.hold(path):
            error = "its path is in no folder that this worker shares: add the folder to the worker's setting shared"
            return item.model_copy(update={"error": error}), b""
        return read_image(item.model_copy(update={"path": path}), limits)


NO_FOLDERS = SharedFolders()


def read_image(item: Item, limits: Limits = DEFAULT_LIMITS) -> tuple[Item, bytes]:
    """The item and the content of its file; if the file cannot be read, the item with the error, and no content.

    Of a file that is no image only the first bytes are read: decode rejects them.
    """
    try:
        with open_file(item.path) as number, open(number, "rb", closefd=False) as file:
            head = file.read(_HEAD_BYTES)
            if not head:
                raise MediaError("the file is empty", "copy it again")
            if image_codec(head) is None:
                return item, head
            most, size = limits.pixels * _MOST_BYTES_PER_PIXEL, os.fstat(number).st_size
            if size > most:
                raise ItemTooLarge(
                    f"the file has {size} bytes, more than {most}", "scale it down or raise the setting max_pixels"
                )
            return item, head + file.read(most)
    except OSError as error:
        return item.model_copy(update={"error": f"cannot read {item.path}: {error.strerror or 'a directory'}"}), b""
    except RigflowError as error:
        return item.model_copy(update={"error": str(error)}), b""
