"""Folders of results: made if missing, and removed again if nothing was written."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from schemas.errors import OutputError


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """`prepare_folder` for a block; folders that it made are removed if the block wrote nothing."""
    clear = partial(_remove_empty, [folder for folder in (out, *out.parents) if not folder.exists()])
    atexit.register(clear)  # a second Ctrl-C may end the block before it cleans up, or while it does
    try:
        prepare_folder(out)
        yield
    finally:
        clear()
        atexit.unregister(clear)


def _remove_empty(folders: list[Path]) -> None:
    from engines.files import discard_all

    discard_all()
    with suppress(OSError):  # it is not empty
        for folder in folders:
            folder.rmdir()


def prepare_folder(out: Path) -> None:
    """Make the output folder. Raises OutputError when nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{out}: a file is where the folder would be", "choose another --out") from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}", "choose another --out") from error
    if not os.access(out, os.W_OK):
        raise OutputError(f"{out}: not writable", "choose another --out")
