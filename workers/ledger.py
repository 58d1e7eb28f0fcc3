"""The files of a watched folder that were processed before, in a database beside the results."""

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from schemas.errors import OutputError, StoreError
from workers.watched import Stamp

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, nbytes INTEGER, mtime_ns INTEGER, inode INTEGER, digest TEXT, target TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (
    digest TEXT PRIMARY KEY, name TEXT, revision TEXT, files TEXT, failures TEXT, at_s REAL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class ContentResult:
    """The result of a content: its files, or why there are none.

    `name` is the input that had it first, `revision` that of the pipeline. `files` are paths in the folder of results.
    """

    name: str
    revision: str = ""
    files: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _File:
    """The record of one input; `target` is the name of its result, without suffix, "" if it has none."""

    stamp: Stamp
    digest: str
    target: str


_UNSEEN = Stamp(-1, 0)


class Ledger:
    """The files that were processed, in a database beside the results. One process has it open: `open`, then `close`.

    Any thread may call it; calls wait for the disk. All rows are also in memory, and each change is on the disk when
    the method returns.
    """

    def __init__(self, path: Path, out: Path, revision: str = "") -> None:
        self._path = path
        self._out = out
        self.revision = revision
        self._lock: IO[bytes] | None = None
        self._database: sqlite3.Connection | None = None
        self._busy = threading.RLock()
        self._files: dict[str, _File] = {}
        self._contents: dict[str, ContentResult] = {}
        self._makers: dict[str, str] = {}  # path of a result -> digest of the content that it was made of
        self._owners: dict[str, str] = {}

    def open(self) -> None:
        """Lock and read it. Raises StoreError when another process has it, OutputError when it is damaged."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            # no link is followed, and no FIFO waited for: other users may write to this folder
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.fdopen(os.open(self._path.with_suffix(".lock"), flags, 0o666), "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
            self._read(self._database)
        except BlockingIOError:
            what = f"{self._path.parent}: another rigflow watch writes here"
            raise StoreError(what, "choose another --out") from None
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self._path}: {error}", "choose another --out") from error
        except (sqlite3.Error, TypeError, ValueError) as error:
            hint = "delete it to have every file processed again"
            raise OutputError(f"{self._path}: not a ledger of rigflow watch", hint) from error
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}", "choose another --out") from error

    def _read(self, database: sqlite3.Connection) -> None:
        for name, nbytes, mtime_ns, inode, digest, target in database.execute("SELECT * FROM files"):
            self._files[name] = _File(Stamp(nbytes, mtime_ns, inode), digest, target)
            self._owners[target] = name
        for digest, name, revision, files, failures, at_s in database.execute("SELECT * FROM contents"):
            outcome = ContentResult(name, revision, tuple(json.loads(files)), tuple(json.loads(failures)), at_s)
            self._contents[digest] = outcome
            self._makers.update(dict.fromkeys(outcome.files, digest))

    def close(self) -> None:
        """Unlock it."""
        if self._database is not None:
            self._database.close()
        if self._lock is not None:
            self._lock.close()

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Whether this file with this stamp was processed by this pipeline, and its results exist."""
        known = self._files.get(name)
        return known is not None and known.stamp == stamp and self.outcome(known.digest) is not None

    def news(self, stamps: Mapping[str, Stamp], left_out: Iterable[str]) -> dict[str, Stamp]:
        """Those files of `stamps` that still have to be processed, without those in `left_out`.

        A copy is left out while the file exists whose result has the same content: that file is in the answer.
        """
        left_out = set(left_out)
        return {
            name: stamp
            for name, stamp in stamps.items()
            if name not in left_out and not self.knows(name, stamp) and not self._is_copy(name, stamp, stamps)
        }

    def _is_copy(self, name: str, stamp: Stamp, stamps: Mapping[str, Stamp]) -> bool:
        known = self._files.get(name)
        of = None if known is None or known.stamp != stamp else self._contents.get(known.digest)
        return (
            of is not None
            and known is not None
            and of.name in stamps
            and of.name != name
            and (self.has(of.name, known.digest))
        )

    def outcome(self, digest: str) -> ContentResult | None:
        """The result of a content; None when it is new, was processed by another revision, or its results are gone."""
        outcome = self._contents.get(digest)
        if outcome is None or outcome.revision != self.revision:
            return None
        return outcome if all((self._out / file).exists() for file in outcome.files) else None

    def has(self, name: str, digest: str) -> bool:
        """Whether the file of this name had this content at its last scan."""
        known = self._files.get(name)
        return known is not None and known.digest == digest

    def target(self, name: str) -> str:
        """The name of this file's result, without suffix; "" when it has none yet."""
        known = self._files.get(name)
        return "" if known is None else known.target

    def owner(self, target: str) -> str:
        """The file whose result has this name; "" when there is none."""
        return self._owners.get(target, "")

    def claim(self, name: str, target: str) -> None:
        """Record the name that the result of this file will have. Raises OutputError."""
        known = self._files.get(name, _File(_UNSEEN, "", ""))
        self._change({name: replace(known, target=target)}, {}, set())

    def same(self, name: str, stamp: Stamp, digest: str) -> None:
        """Record that a file has a content that was processed before. Raises OutputError."""
        self._change({name: _File(stamp, digest, self.target(name))}, {}, set())

    def record(
        self, name: str, stamp: Stamp, digest: str, files: tuple[str, ...] = (), failures: tuple[str, ...] = ()
    ) -> None:
        """Record the result of a file. Raises OutputError.

        Records of contents whose results were in these files before are deleted, so files with them are new again.
        """
        with self._busy:
            gone = {self._makers[file] for file in files if file in self._makers} - {digest}
            outcome = ContentResult(name, self.revision, files, failures, time.time())
            self._change({name: _File(stamp, digest, self.target(name))}, {digest: outcome}, gone)

    def _change(self, files: Mapping[str, _File], contents: Mapping[str, ContentResult], gone: set[str]) -> None:
        """Set rows, and delete the contents in `gone`, in one transaction; on the disk first."""
        assert self._database is not None, "open first"
        with self._busy:
            try:
                self._database.execute("BEGIN")
                for digest in gone:
                    self._database.execute("DELETE FROM contents WHERE digest = ?", (digest,))
                for digest, of in contents.items():
                    row = (digest, of.name, of.revision, json.dumps(of.files), json.dumps(of.failures), of.at_s)
                    self._database.execute("REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", row)
                for name, file in files.items():
                    stamp = file.stamp
                    values = (name, stamp.nbytes, stamp.mtime_ns, stamp.inode, file.digest, file.target)
                    self._database.execute("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise OutputError(f"{self._path}: {error}", "free some space, or choose another --out") from error
            self._owners.update((file.target, name) for name, file in files.items() if file.target)
            self._files.update(files)
            for digest in gone:
                self._contents.pop(digest, None)
            self._contents.update(contents)
            for digest, of in contents.items():
                self._makers.update(dict.fromkeys(of.files, digest))
