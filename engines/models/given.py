"""Refuses files that were given as a model and cannot be one, by their content: what failed downloads leave."""

import stat
from pathlib import Path

from schemas.errors import ModelError

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")
_HEAD_BYTES = 256


def check_given(path: Path) -> None:
    """Raise ModelError for what is no regular file, an empty file, a pointer of Git LFS, or a web page.

    A file that cannot be read is left to whatever reads it next.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a read from a FIFO could block for ever
            raise ModelError(f"{path} is no regular file", "copy its content to a file")
        if found.st_size == 0:
            raise ModelError(f"{path} is empty", "download it again")
        head = _head(path)
    except OSError:
        return
    _check_pointer(path, head)
    if head.lstrip().lower().startswith(_PAGES):
        raise ModelError(
            f"{path} is a web page", "download the file itself; some sites want a login or a consent first"
        )


def check_own(path: Path, folder: Path) -> None:
    """Raise ModelError for a link in a model's folder that leads out of it: whoever made it chooses what is read.

    Those of Hugging Face's cache, `snapshots/REVISION/FILE`, lead to its `blobs`.
    """
    found, root = path.resolve(), folder.resolve()
    cached = root.parent.name == "snapshots" and found.parent == root.parent.parent / "blobs"
    if not cached and not found.is_relative_to(root):
        raise ModelError(f"{path} is a link to {found}, which is not in its folder", "copy that file to its place")


def check_no_pointer(path: Path) -> None:
    """Raise ModelError for a pointer of Git LFS, which stands in a clone for a file that was not fetched.

    Raises OSError.
    """
    _check_pointer(path, _head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _check_pointer(path: Path, head: bytes) -> None:
    if head.startswith(_POINTER):
        raise ModelError(f"{path} is a pointer of Git LFS, not the file itself", "fetch it by `git lfs pull`")
