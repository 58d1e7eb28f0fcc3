"""A watched folder, the part without waiting: which files are new and quiet, and which were done before."""

import fcntl
import os
import time
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.whole import write_whole
from schemas.errors import OutputError, StoreError

UNFINISHED = frozenset({".part", ".partial", ".tmp", ".crdownload", ".download", ".filepart"})


class Stamp(BaseModel):
    """What tells at a glance whether a file is still the same."""

    model_config = ConfigDict(frozen=True)
    nbytes: int
    mtime_ns: int


class Outcome(BaseModel):
    """What became of a content: its files, or why there are none. `name` is the file that had it first."""

    model_config = ConfigDict(frozen=True)
    name: str
    files: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    at_s: float = 0.0


class _Pages(BaseModel):
    """The ledger on disk. `files`: path -> its stamp and the sha256 of its content; `contents`: sha256 -> outcome."""

    version: int = 1
    files: dict[str, tuple[Stamp, str]] = {}
    contents: dict[str, Outcome] = {}


def scan(folder: Path, leave_out: Path) -> dict[str, Stamp]:
    """All files under `folder` by their path in it, but for hidden and unfinished ones and what is in `leave_out`.

    Raises OutputError when the folder is gone.
    """
    found: dict[str, Stamp] = {}
    left_out = leave_out.resolve()
    if not folder.is_dir():
        raise OutputError(f"{folder}: the watched folder is gone", "bring it back, and start this again")
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() != left_out]
        for name in files:
            if name.startswith(".") or Path(name).suffix.lower() in UNFINISHED:
                continue
            if (stamp := stamp_of(here / name)) is not None:
                found[str((here / name).relative_to(folder))] = stamp
    return found


def stamp_of(path: Path) -> Stamp | None:
    """A file's stamp now; None when it is gone, or a link to nowhere."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return Stamp(nbytes=stat.st_size, mtime_ns=stat.st_mtime_ns)


class Quiet:
    """Tells files that are written from files that are ready: these keep size and mtime for `quiet_s`."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._since: dict[str, tuple[Stamp, float]] = {}

    def ready(self, stamps: Mapping[str, Stamp], now_s: float) -> list[str]:
        """Of the files in `stamps`, all that are of interest now, those that have been quiet; each is told once."""
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


class Ledger:
    """What was done before, kept beside the results; one process writes it at a time. `open`, then `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = _Pages()
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Lock and read it. Raises StoreError when another process has it, OutputError when it is damaged."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            self._lock = self._path.with_suffix(".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._path.exists():
                self._pages = _Pages.model_validate_json(self._path.read_bytes())
        except BlockingIOError:
            what = f"{self._path.parent}: another rigflow watch writes here"
            raise StoreError(what, "choose another --out") from None
        except ValidationError as error:
            hint = "delete it to have every file done again"
            raise OutputError(f"{self._path}: not a ledger of rigflow watch", hint) from error
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}", "choose another --out") from error

    def close(self) -> None:
        """Unlock it."""
        if self._lock is not None:
            self._lock.close()

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Whether this very file was seen, and done, before."""
        known = self._pages.files.get(name)
        return known is not None and known[0] == stamp

    def outcome(self, digest: str) -> Outcome | None:
        """What became of a content; None when it is new."""
        return self._pages.contents.get(digest)

    def same(self, name: str, stamp: Stamp, digest: str) -> None:
        """Note that a file has a content that was done before. Raises OutputError."""
        self._pages.files[name] = (stamp, digest)
        self._save()

    def record(
        self, name: str, stamp: Stamp, digest: str, files: tuple[str, ...] = (), failures: tuple[str, ...] = ()
    ) -> None:
        """Note what became of a file, on disk when this returns. Raises OutputError.

        Contents whose results were in these files before are forgotten: whatever still has one is new again.
        """
        contents = self._pages.contents
        gone = {other for other, was in contents.items() if other != digest and not set(files).isdisjoint(was.files)}
        for other in gone:
            del contents[other]
        self._pages.files = {path: known for path, known in self._pages.files.items() if known[1] not in gone}
        self._pages.contents[digest] = Outcome(name=name, files=files, failures=failures, at_s=time.time())
        self.same(name, stamp, digest)

    def _save(self) -> None:
        try:
            write_whole(self._path, self._pages.model_dump_json(indent=1).encode(), sync=True)
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}", "free some space, or choose another --out") from error


def content_digest(path: Path) -> str:
    """sha256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
