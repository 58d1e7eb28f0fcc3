"""Standard input as a file: media and texts that come through a pipe."""

import codecs
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.text import warn
from engines.scratch import scratch_folder
from schemas.errors import MediaError, RigflowError

STDIN = Path("-")
_HEAD = 1 << 16  # bytes by which a text is told from other media


@dataclass(frozen=True, slots=True)
class Given:
    """A temporary file with what came, and whether that is a text."""

    path: Path
    text: bool


@contextmanager
def from_stdin() -> Iterator[Given]:
    """What standard input has, in a file for the time of the block. Raises MediaError when it has nothing."""
    with scratch_folder("stdin") as folder:
        path = folder / "stdin"
        if sys.stdin is None:
            raise MediaError("standard input is closed", "give a text or a file: `... - < FILE`")
        if sys.stdin.buffer.isatty():
            warn("reads standard input until Ctrl-D")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if not head.strip():
            raise MediaError("standard input has nothing in it", "give a text or a file: `... - < FILE`")
        text = _is_text(head)
        if text:
            path = path.rename(path.with_suffix(".jsonl" if head.lstrip().startswith(b"{") else ".txt"))
        yield Given(path, text)


def name_stdin(error: RigflowError, path: Path) -> None:
    """Have an error about the temporary file be one about standard input."""
    for name in (str(path.resolve()), str(path), path.name):
        error.what, error.hint = (text.replace(name, "standard input") for text in (error.what, error.hint))


def _is_text(head: bytes) -> bool:
    """Whether the beginning of a file is UTF-8 without NUL; its last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
