"""The files of a folder that were processed before, in a database beside the results."""

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from schemas.errors import OutputError, StoreError
from workers.watched import Stamp, stamp_of

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, nbytes INTEGER, mtime_ns INTEGER, inode INTEGER, digest TEXT, target TEXT, made TEXT
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


Written = tuple[int, int]
"""Size and mtime_ns of a file as it was written: a file that a person changed has others."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """What was made of one input of a folder: `made` are its own files, paths in the folder of results.

    `target` is the name of its result, without suffix, "" if it has none.
    """

    stamp: Stamp
    digest: str
    target: str
    made: Mapping[str, Written] = field(default_factory=dict)


_UNSEEN = FileResult(Stamp(-1, 0), "", "")


def ledger_path(out: Path, pipeline: str) -> Path:
    """Where the ledger of a pipeline is whose results go to `out`."""
    return out / f".rigflow-{pipeline}.db"


class Ledger:
    """The files that were processed, in a database beside the results. One process has it open: `open`, then `close`.

    Any thread may call it; calls wait for the disk. All rows are also in memory, and each change is on the disk when
    the method returns.
    """

    def __init__(self, path: Path, out: Path, revision: str = "") -> None:
        self._path = path
        self._lock_path = path.with_suffix(".lock")
        self._out = out
        self.revision = revision
        self._lock: IO[bytes] | None = None
        self._database: sqlite3.Connection | None = None
        self._is_new = False
        self._busy = threading.RLock()
        self._files: dict[str, FileResult] = {}
        self._contents: dict[str, ContentResult] = {}
        self._made: set[str] = set()  # paths of the results of all contents
        self._owners: dict[str, str] = {}
        self._written: dict[str, Written] = {}

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
            self._lock = os.fdopen(os.open(self._lock_path, flags, 0o666), "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._lock.fileno()).st_nlink:
                raise BlockingIOError  # `close` of another process deleted it just now
            self._is_new = not self._path.exists()
            self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
            self._read(self._database)
        except BlockingIOError:
            what = f"{self._path.parent}: another rigflow writes here"
            raise StoreError(what, "choose another --out") from None
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self._path}: {error}", "choose another --out") from error
        except (sqlite3.Error, TypeError, ValueError) as error:
            hint = "delete it to have every file processed again"
            raise OutputError(f"{self._path}: not a ledger of this rigflow", hint) from error
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}", "choose another --out") from error

    def _read(self, database: sqlite3.Connection) -> None:
        for name, nbytes, mtime_ns, inode, digest, target, made in database.execute("SELECT * FROM files"):
            written: dict[str, Written] = {path: (size, at) for path, (size, at) in json.loads(made).items()}
            self._files[name] = FileResult(Stamp(nbytes, mtime_ns, inode), digest, target, written)
            self._written.update(written)
            self._owners[target] = name
        for digest, name, revision, files, failures, at_s in database.execute("SELECT * FROM contents"):
            outcome = ContentResult(name, revision, tuple(json.loads(files)), tuple(json.loads(failures)), at_s)
            self._contents[digest] = outcome
            self._made.update(outcome.files)

    def close(self) -> None:
        """Unlock it, after the change that a thread makes. One that `open` made and has nothing in it is deleted."""
        with self._busy:
            if self._database is not None:
                self._database.close()
                self._database = None  # sqlite3 crashes where a thread uses one that is closed
                if self._is_new and not self._files and not self._contents:
                    for path in (self._path, self._lock_path):
                        with suppress(OSError):
                            path.unlink()
            if self._lock is not None:
                self._lock.close()

    def forget_results(self) -> None:
        """Have every file processed again.

        Results that differ are written beside the earlier ones, unless they may be replaced.
        """
        with self._busy:
            if self._database is not None:
                self._database.execute("DELETE FROM contents")
            self._contents.clear()

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Whether this file with this stamp was processed by this pipeline, and its results exist."""
        known = self._files.get(name)
        return known is not None and known.stamp == stamp and self._is_done(known)

    def knows_content(self, name: str, digest: str) -> bool:
        """Whether a file with this content was processed under this name, and its results exist."""
        known = self._files.get(name)
        return known is not None and known.digest == digest and self._is_done(known)

    def _is_done(self, known: FileResult) -> bool:
        content = self._content(known.digest)
        return content is not None and all(map(self._exists, known.made or content.files))

    def _exists(self, file: str) -> bool:
        return os.path.exists(os.path.join(self._out, file))

    def is_own(self, file: str) -> bool:
        """Whether a file of this path in the folder of results is as the ledger's command wrote it."""
        written = self._written.get(file)
        if written is None:
            return False
        stamp = stamp_of(self._out / file)
        return stamp is not None and (stamp.nbytes, stamp.mtime_ns) == written

    def wrote(self, file: str) -> bool:
        """Whether a file of this path was ever written as a result."""
        return file in self._written or file in self._made

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
        if of is None or known is None or of.name == name:
            return False
        return of.name in stamps and self.has(of.name, known.digest)

    def outcome(self, digest: str) -> ContentResult | None:
        """The result of a content; None when it is new, was processed by another revision, or its results are gone."""
        outcome = self._content(digest)
        return outcome if outcome is not None and all(map(self._exists, outcome.files)) else None

    def _content(self, digest: str) -> ContentResult | None:
        outcome = self._contents.get(digest)
        return outcome if outcome is not None and outcome.revision == self.revision else None

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
        known = self._files.get(name, _UNSEEN)
        self._change({name: replace(known, target=target)}, {}, set())

    def all_same(self, seen: Mapping[str, tuple[Stamp, str]]) -> None:
        """Record that files have contents that were processed before, by name. Raises OutputError."""
        known = {name: self._files.get(name, _UNSEEN) for name in seen}
        changed = {name: replace(of, stamp=seen[name][0], digest=seen[name][1]) for name, of in known.items()}
        self._change(changed, {}, set())

    def record(
        self, name: str, stamp: Stamp, digest: str, files: tuple[str, ...] = (), failures: tuple[str, ...] = ()
    ) -> None:
        """Record the result of a file. Raises OutputError.

        Records of contents whose results were in these files before are deleted, so files with them are new again.
        """
        with self._busy:
            gone = self._makers_of(files) - {digest}
            outcome = ContentResult(name, self.revision, files, failures, time.time())
            self._change({name: FileResult(stamp, digest, self.target(name))}, {digest: outcome}, gone)

    def record_all(self, results: Mapping[str, FileResult]) -> None:
        """Record what is about to be made of files, by name, in one transaction. Raises OutputError.

        Call it before the files in `made` get their names: what is missing afterwards is not known as done.
        """
        with self._busy:
            each, now_s = results.items(), time.time()
            contents = {of.digest: ContentResult(name, self.revision, tuple(of.made), at_s=now_s) for name, of in each}
            made = {file for of in results.values() for file in of.made}
            replaced = self._made.intersection(made)
            others = self._files.items() if replaced else ()  # there may be 100,000
            lost = {name: replace(_UNSEEN, target=of.target) for name, of in others if not replaced.isdisjoint(of.made)}
            self._change({**lost, **results}, contents, self._makers_of(made) - contents.keys())

    def _makers_of(self, files: Iterable[str]) -> set[str]:
        """The contents whose results are in any of these files, which are about to be replaced."""
        replaced = self._made.intersection(files)
        every = self._contents.items() if replaced else ()  # there may be 100,000
        return {digest for digest, of in every if not replaced.isdisjoint(of.files)}

    def _change(self, files: Mapping[str, FileResult], contents: Mapping[str, ContentResult], gone: set[str]) -> None:
        """Set rows, and delete the contents in `gone`, in one transaction; on the disk first."""
        with self._busy:
            assert self._database is not None, "it is not open"
            try:
                self._database.execute("BEGIN")
                for digest in gone:
                    self._database.execute("DELETE FROM contents WHERE digest = ?", (digest,))
                for digest, of in contents.items():
                    row = (digest, of.name, of.revision, json.dumps(of.files), json.dumps(of.failures), of.at_s)
                    self._database.execute("REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", row)
                for name, file in files.items():
                    stamp = file.stamp
                    made = json.dumps(dict(file.made))
                    values = (name, stamp.nbytes, stamp.mtime_ns, stamp.inode, file.digest, file.target, made)
                    self._database.execute("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise OutputError(f"{self._path}: {error}", "free some space, or choose another --out") from error
            self._owners.update((file.target, name) for name, file in files.items() if file.target)
            self._files.update(files)
            for file in files.values():
                self._written.update(file.made)
            for digest in gone:
                self._contents.pop(digest, None)
            self._contents.update(contents)
            for of in contents.values():
                self._made.update(of.files)
