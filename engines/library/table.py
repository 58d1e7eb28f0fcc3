"""The table of a library: all vectors of its results in one file for each model, and what each vector is of.

It is derived from the results and lies in `.rigflow-search` in the library. Before each search it is brought up to
date: results that are new or were changed are read, their vectors are appended to the file, and those of results that
are gone are left out of the table; when half of a file is left out, it is written anew. The results stay as they are,
and the table may be deleted at any time.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from engines.library.results import Embedded, read_embedded
from engines.library.spaces import Space, Stored, Table
from engines.library.table_file import LOCK, read_table, write_table
from engines.part import Array
from engines.scratch import scratch_folder
from engines.vectors import unit

FOLDER = ".rigflow-search"
_SUFFIX = ".npz"


@contextmanager
def up_to_date(library: Path) -> Iterator[Table]:
    """The table of a library for the time of the block. Where it cannot be kept in the library, it is made anew.

    Where there are no vectors, nothing is kept. Raises OSError if the library cannot be read.
    """
    try:
        if not (library / FOLDER).exists() and next(_results(library), None) is None:
            raise FileNotFoundError
        (library / FOLDER).mkdir(exist_ok=True)
        with _locked(library / FOLDER):
            table = _updated(library, library / FOLDER)
            if not table.spaces:
                shutil.rmtree(library / FOLDER, ignore_errors=True)
    except OSError:
        if not os.access(library, os.R_OK | os.X_OK):
            raise
        with scratch_folder("search") as folder:
            yield _updated(library, folder)
        return
    yield table


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time brings a table up to date."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _updated(library: Path, folder: Path) -> Table:
    table = read_table(folder)
    found = dict(_results(library))
    if {name: stored.stamp for name, stored in table.files.items()} == found:
        table.map()
        return table
    gone = [name for name, stored in table.files.items() if found.get(name) != stored.stamp]
    for name in gone:
        del table.files[name]
    writers = _Writers(table)
    with writers:
        for name in sorted(found.keys() - table.files.keys()):
            table.files[name] = writers.take(found[name], read_embedded(library / name))
    _compact(table)
    for identity in [each for each, space in table.spaces.items() if not space.rows]:
        del table.spaces[identity]
    for identity, space in table.spaces.items():
        _choose(space, [each for each in table.files.values() if each.space == identity])
    write_table(table)
    table.map()
    return table


def _results(library: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and stamp of each file that may be a result; hidden files and folders are left alone."""
    folders = [""]
    while folders:
        inside = folders.pop()
        with os.scandir(library / inside) as entries:
            for entry in entries:
                name = os.path.join(inside, entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif name.endswith(_SUFFIX):
                    with suppress(OSError):  # it was deleted just now
                        stat = entry.stat()
                        yield name, (stat.st_mtime_ns, stat.st_size)


class _Writers:
    """Appends vectors to the files of the models."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._open: dict[str, Any] = {}
        self._media: dict[str, list[Array]] = {}
        self._times: dict[str, list[Array]] = {}
        self._numbers: dict[str, dict[str, int]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for identity, file in self._open.items():
            file.close()
            space = self._table.spaces[identity]
            space.media = np.concatenate([space.media, *self._media[identity]])
            space.times = np.concatenate([space.times, *self._times[identity]])

    def take(self, stamp: tuple[int, int], found: Embedded | None) -> Stored:
        """Append what a result has."""
        if found is None or not len(found.vectors):
            return Stored(stamp)
        space = self._table.spaces.get(found.identity)
        if space is None:
            width = found.vectors.shape[1]
            space = self._table.spaces[found.identity] = Space(found.model, _new_file(found.identity), width)
        if found.vectors.shape[1] != space.width:
            return Stored(stamp)
        if found.identity not in self._open:
            self._begin(found.identity, space)
        first = space.rows + sum(map(len, self._media[found.identity]))
        vectors = np.nan_to_num(unit(found.vectors), nan=0.0)  # what is not finite is like nothing
        self._open[found.identity].write(np.ascontiguousarray(vectors).data)
        numbers = self._numbers[found.identity]
        for name in found.media:
            if name not in numbers:
                numbers[name] = len(space.names)
                space.names.append(name)
        self._media[found.identity].append(np.array([numbers[name] for name in found.media], np.int32))
        self._times[found.identity].append(found.times.astype(np.float64))
        return Stored(stamp, found.identity, first, len(found.vectors))

    def _begin(self, identity: str, space: Space) -> None:
        file = (self._table.folder / space.file).open("ab")
        file.truncate(space.rows * space.width * 4)  # what a process appended that ended before it wrote its table
        self._open[identity], self._media[identity], self._times[identity] = file, [], []
        self._numbers[identity] = {name: number for number, name in enumerate(space.names)}


def _new_file(identity: str) -> str:
    return f"{identity[:16]}-{uuid4().hex[:8]}.f32"


def _choose(space: Space, files: Sequence[Stored]) -> None:
    """Of several results of one media the newest counts: running again over the same files adds nothing."""
    owner = np.full(space.rows, -1, np.int64)
    order = sorted(files, key=lambda each: each.stamp)
    for number, each in enumerate(order):
        owner[each.first : each.first + each.count] = number
    newest = np.full(len(space.names), -1, np.int64)
    np.maximum.at(newest, space.media, owner)
    rows = np.flatnonzero((owner >= 0) & (owner == newest[space.media]))
    space.live = rows[np.argsort(space.media[rows], kind="stable")]
    counts = np.bincount(space.media[space.live], minlength=len(space.names))
    space.starts = np.concatenate([[0], np.cumsum(counts)])


def _compact(table: Table) -> None:
    """Write the vectors of a model anew where half of them are of results that are gone."""
    for identity, space in table.spaces.items():
        files = [each for each in table.files.values() if each.space == identity]
        kept = sum(each.count for each in files)
        if 2 * kept > space.rows or not space.rows:
            continue
        file = _new_file(identity)
        vectors = np.memmap(table.folder / space.file, np.float32, "r", shape=(space.rows, space.width))
        rows: list[Array] = []
        with (table.folder / file).open("wb") as out:
            for each in files:
                rows.append(np.arange(each.first, each.first + each.count))
                out.write(np.ascontiguousarray(vectors[rows[-1]]).data)
        first = 0
        for each in files:
            each.first, first = first, first + each.count
        chosen = np.concatenate(rows) if rows else np.empty(0, np.int64)
        used, media = np.unique(space.media[chosen], return_inverse=True)
        space.names = [space.names[number] for number in used]
        space.file, space.media, space.times = file, media.astype(np.int32), space.times[chosen]
