"""A watched folder: its files, which of them are unchanged for a while, and what they contain."""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import file_digest
from pathlib import Path

from schemas.text import is_text

UNFINISHED = frozenset({".part", ".partial", ".tmp", ".crdownload", ".download", ".filepart"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """Metadata by which a changed file is noticed without reading it."""

    nbytes: int
    mtime_ns: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Patterns:
    """Chooses files by shell patterns, upper and lower case alike. One with a `/` is for the path, others for the name.

    A file is chosen if it has one of `include`, or there is none, and has none of `exclude`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def choose(self, path: str) -> bool:
        """Whether the file of a path in the folder is chosen."""
        included = not self.include or any(_matches(path, each) for each in self.include)
        return included and not any(_matches(path, each) for each in self.exclude)


def _matches(path: str, pattern: str) -> bool:
    text = path if "/" in pattern else os.path.basename(path)
    return fnmatchcase(text.lower(), pattern.lower())


ALL_FILES = Patterns()


@dataclass(slots=True)
class Scan:
    """The content of a folder: files by their path in it, and the reasons why others are skipped."""

    files: dict[str, Stamp] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def scan(folder: Path, leave_out: Path, patterns: Patterns = ALL_FILES) -> Scan:
    """All files under `folder` by their path in it, without hidden and unfinished ones and those in `leave_out`.

    Files that `patterns` do not choose are in neither list.

    A path that is no regular file, leads out of the folder or cannot be read is in `skipped` with the reason; "." is
    the folder itself.
    """
    found = Scan()
    left_out, home = os.path.realpath(leave_out), os.path.realpath(folder)
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        real = os.path.join(home, inside)  # no link is followed into a folder
        try:
            entries = list(os.scandir(real))
        except OSError as error:
            found.skipped[inside or "."] = f"cannot read it: {error.strerror}"
            continue
        for entry in entries:
            relative = os.path.join(inside, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting += [relative] if os.path.join(real, entry.name) != left_out else []
            elif os.path.splitext(entry.name)[1].lower() not in UNFINISHED and patterns.choose(relative):
                try:
                    if not entry.is_dir():  # through a link; an error for links that lead in a circle
                        found.files[relative] = _stamp_in(entry, home)
                except FileNotFoundError:
                    if entry.is_symlink():
                        found.skipped[relative] = "it is a link to a file that does not exist"
                except OSError as error:
                    found.skipped[relative] = str(error.strerror)
    return found


def _stamp_in(entry: "os.DirEntry[str]", home: str) -> Stamp:
    """The stamp of a file that may be read. Raises FileNotFoundError, or OSError with the reason in words."""
    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
    if not is_text(real):
        raise OSError(errno.EILSEQ, "its name is not UTF-8: rename it")
    status = entry.stat()
    if not real.startswith(os.path.join(home, "")):
        raise OSError(errno.EXDEV, "it is a link out of the folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def stamp_of(path: Path) -> Stamp | None:
    """A file's stamp now; None when it is gone, or a dangling link."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


class Quiet:
    """Finds files that are ready: their stamp has not changed for `quiet_s`."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._since: dict[str, tuple[Stamp, float]] = {}

    def ready(self, stamps: Mapping[str, Stamp], now_s: float) -> list[str]:
        """Those files of `stamps` that have not changed for `quiet_s`; each is returned once."""
        for name in self._since.keys() - stamps.keys():
            del self._since[name]
        ready = []
        for name, stamp in stamps.items():
            known, since_s = self._since.get(name, (None, now_s))
            if known != stamp:
                self._since[name] = (stamp, now_s)
            elif now_s - since_s >= self._quiet_s:
                ready.append(name)
                del self._since[name]
        return ready


def content_digest(path: Path) -> str:
    """sha256 of a file's content. Raises OSError, also for what is no regular file: a FIFO would block."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        return file_digest(file, "sha256").hexdigest()
