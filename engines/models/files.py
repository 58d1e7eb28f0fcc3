"""Files of a user's models in the model store's folder, each under its SHA-256: models with equal files share them.

A file belongs to the models whose cards list it. `NewFiles` brings files of a model that has no card there yet;
`remove_unused` removes what no card lists.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from engines.models.given import check_no_pointer
from engines.scratch import scratch_folder
from schemas.errors import ModelError, StoreError
from schemas.model_files import FileSpec

_CHUNK_BYTES = 8 << 20
_PART = ".adding-"
_OURS = re.compile(rf"[0-9a-f]{{64}}|{re.escape(_PART)}.*")


class NewFiles:
    """Copies files of a new model into the store's folder, which is made for the first of them.

    At the end of the `with` block, files that no card of `used` lists are removed: those of a model that was not kept.
    """

    def __init__(self, folder: Path, used: Callable[[], Iterable[FileSpec] | None]) -> None:
        self.folder = folder
        self._used = used
        self._lock: int | None = None
        self._scratch = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            remove_unused(self.folder, self._used)

    def scratch(self, kind: str) -> Path:
        """Make a folder for files made on the way; it is removed at the end of the block. Raises StoreError."""
        try:
            return self._scratch.enter_context(scratch_folder(kind))
        except OSError as error:
            raise StoreError(f"there is no folder for temporary files: {error.strerror}", "set TMPDIR") from error

    def take(self, source: Path, name: str) -> FileSpec:
        """Copy a file. Raises ModelError if it cannot be read, StoreError if the copy cannot be written."""
        try:
            check_no_pointer(source)
            file = source.open("rb")
        except OSError as error:
            raise ModelError(f"cannot read {source}: {error.strerror}", "check the path") from error
        with file:
            return self._store(iter(lambda: file.read(_CHUNK_BYTES), b""), name, source)

    def put(self, body: bytes, name: str) -> FileSpec:
        """Store a file of these bytes. Raises StoreError."""
        return self._store(iter((body,)), name, Path(name))

    def put_chunks(self, chunks: Iterator[bytes], name: str) -> FileSpec:
        """Store a file of these bytes, one after the other. Raises StoreError."""
        return self._store(chunks, name, Path(name))

    def _store(self, chunks: Iterator[bytes], name: str, source: Path) -> FileSpec:
        hashed, size = hashlib.sha256(), 0
        with _writing(self.folder):
            self._open()
            part = self.folder / f"{_PART}{os.getpid()}-{hashlib.sha256(str(source).encode()).hexdigest()[:16]}"
            try:
                with part.open("wb") as copy:
                    for chunk in chunks:
                        hashed.update(chunk)
                        size += len(chunk)
                        copy.write(chunk)
                os.replace(part, self.folder / hashed.hexdigest())
            finally:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        return FileSpec(name=name, size=size, sha256=hashed.hexdigest())

    def _open(self) -> None:
        """Lock the folder: meanwhile no other process removes files that no card lists yet."""
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)


def remove_unused(folder: Path, used: Callable[[], Iterable[FileSpec] | None]) -> None:
    """Remove files that no model has, and those of a `NewFiles` that was killed.

    `used` returns the files of all models, or None if that is not known; then, and while another process adds a model,
    nothing is removed: the next call does. Raises OSError.
    """
    with _alone(folder) as alone:
        files = used() if alone else None
        if files is None:
            return
        kept = {file.sha256 for file in files}
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot keep a model in {folder}: {error.strerror}"
        raise StoreError(what, "make room on its disk, or make it writable; nothing was kept") from error
