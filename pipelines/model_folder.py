"""Models on a machine's disk, for all its workers: cards by identity, and files by hash, which models may share.

A process holds a shared lock on the card of each model that it has loaded or is fetching. A process that adds or
removes a model locks the folder, so that no file of a card in use is removed.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from engines.content import file_sha256
from engines.files import atomic_write
from schemas.errors import ModelError

_FILE = re.compile(r"[0-9a-f]{64}")
_PART = ".part"


class ModelFolder:
    """A folder of at most `limit_bytes` of files. Its methods read and write files: call them in a thread.

    All raise OSError.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes

    def path(self, sha256: str) -> Path:
        """Where the file of this hash is."""
        return self.folder / sha256

    def card(self, identity: str) -> bytes | None:
        """The card of a model; None if it is not here."""
        with suppress(FileNotFoundError):
            return self._card_path(identity).read_bytes()
        return None

    def put_card(self, identity: str, body: bytes) -> None:
        """Store a card."""
        with self._locked(fcntl.LOCK_EX):
            self._write_card(identity, body)

    def hold(self, identity: str, body: bytes) -> int:
        """Store a card and lock it: the model stays until the descriptor that this returns is closed."""
        with self._locked(fcntl.LOCK_EX):
            path = self._write_card(identity, body)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(path)  # used now: the model that was used least recently is removed first
            return descriptor

    def has(self, sha256: str) -> bool:
        """Whether a file is here and undamaged; a damaged one is removed."""
        path = self.path(sha256)
        with suppress(FileNotFoundError), path.open("rb") as file:
            if file_sha256(path) == sha256:
                return True
            with self._locked(fcntl.LOCK_EX):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # no other process has replaced it
                    path.unlink()
        return False

    def begin(self, sha256: str, size: int) -> BinaryIO | None:
        """Open a file of `size` bytes for writing; None if it is here, or another process writes it.

        `commit` or `discard` follows. Raises ModelError if the models in use leave no room for it.
        """
        with self._locked(fcntl.LOCK_EX):
            if self.path(sha256).exists():
                return None
            path = self._part_path(sha256)
            part = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666), "r+b")
            if not _locks(part.fileno()):
                part.close()
                return None
            try:
                part.truncate(0)
                self._make_room(size, path)
                part.truncate(size)  # so that other processes count its bytes
            except BaseException:
                path.unlink(missing_ok=True)
                part.close()
                raise
        return part

    def commit(self, sha256: str, part: BinaryIO) -> None:
        """Rename a file that is complete to its hash."""
        part.flush()
        with self._locked(fcntl.LOCK_SH):
            os.replace(self._part_path(sha256), self.path(sha256))
            part.close()

    def discard(self, sha256: str, part: BinaryIO) -> None:
        """Remove a file that is not complete."""
        with self._locked(fcntl.LOCK_SH):
            self._part_path(sha256).unlink(missing_ok=True)
            with suppress(OSError):  # the disk may be full, and the file is removed anyway
                part.close()

    def _make_room(self, nbytes: int, beside: Path) -> None:
        """Remove models that are not in use, the least recently used first, until `nbytes` more fit."""
        listed = {path: _hashes(path) for path in self.folder.glob("*.json")}
        sizes = {path: path.stat().st_size for path in self.folder.iterdir() if _FILE.fullmatch(path.name)}
        parts = {path: path.stat().st_size for path in self.folder.glob(f"*{_PART}") if path != beside}
        for path in [path for path in parts if _removed_unlocked(path)]:  # of processes that were killed
            del parts[path]
        for path in [path for path in sizes if path.name not in set().union(*listed.values())]:
            path.unlink(missing_ok=True)
            del sizes[path]
        for card in sorted(listed, key=lambda path: path.stat().st_mtime_ns):
            if sum((*sizes.values(), *parts.values()), nbytes) <= self._limit_bytes:
                return
            if _removed_unlocked(card):
                alone = listed.pop(card).difference(*listed.values())
                for path in [path for path in sizes if path.name in alone]:
                    path.unlink(missing_ok=True)
                    del sizes[path]
        taken = sum((*sizes.values(), *parts.values()))
        if taken + nbytes > self._limit_bytes:
            what = f"a model's file of {nbytes:,} bytes does not fit beside the {taken:,} bytes of models in use here"
            raise ModelError(what, f"raise the setting models_disk_bytes, which is {self._limit_bytes:,}")

    def _write_card(self, identity: str, body: bytes) -> Path:
        path = self._card_path(identity)
        if self.card(identity) != body:  # a file with this content is not replaced: another process may have locked it
            atomic_write(path, body)
        return path

    def _card_path(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"

    def _part_path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{_PART}"

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def _hashes(card: Path) -> set[str]:
    """The hashes of all files of a model; none for a card that cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fields = json.loads(card.read_bytes())
        return {str(fields["sha256"]), *(str(file["sha256"]) for file in fields.get("files", ()))}
    return set()


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _removed_unlocked(path: Path) -> bool:
    """Remove a file, unless a process has locked it; returns whether it is removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _locks(descriptor):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
