"""An index of the vectors of a library, by usearch (the extra `search`): near neighbours without comparing with all.

It is derived from the table, and lies beside the vectors. It has the rows that were there when it was built; rows that
came later are compared one by one, until so many did that it is brought up to date. Its vectors have 8 bits a number:
it proposes candidates only: their cosines are computed from the vectors themselves. It may miss a candidate.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.extras import install_extra
from engines.files import writing
from engines.library.spaces import Space
from engines.part import Array
from schemas.errors import UsageError

FROM_ROWS = 500_000  # from so many on, finding near-duplicates by an index that has to be built is faster
_LATER = 0.1  # share of rows that came later, from which on the index is brought up to date
_AT_ONCE = 20_000
_NEIGHBOURS = 32  # of each picture, for near-duplicates
_TIMES = 10  # as many candidates as hits are wanted, because media and not pictures are wanted


@dataclass(frozen=True, slots=True)
class Index:
    """The index of the first `rows` rows of a space."""

    found: Any
    rows: int

    def candidates(self, space: Space, vector: Array, most: int) -> Array:
        """Scores of all rows, `[rows]` float32, computed for candidates alone: -inf for all others."""
        scores = np.full(space.rows, -np.inf, np.float32)
        near = self.found.search(vector, min(self.rows, most * _TIMES), exact=False).keys.astype(np.int64)
        rows = np.concatenate([near, np.arange(self.rows, space.rows)])
        rows = rows[space.is_live[rows]]
        scores[rows] = space.vectors[rows] @ vector
        return scores

    def neighbours(self, space: Space) -> Iterator[tuple[Array, Array]]:
        """Pairs of rows that may be alike, `(rows [P], others [P])`, each pair once or twice, of rows that it has."""
        live = space.is_live
        for first in range(0, len(space.live), _AT_ONCE // 10):
            rows = space.live[first : first + _AT_ONCE // 10]
            vectors = np.ascontiguousarray(space.vectors[rows])
            matches = self.found.search(vectors, min(_NEIGHBOURS, self.rows))
            counts = np.asarray(matches.counts) if len(rows) > 1 else np.array([len(matches)])
            keys = np.atleast_2d(matches.keys).astype(np.int64)
            inside = np.arange(keys.shape[1]) < counts[:, None]
            others, left = keys[inside], np.repeat(rows, counts)
            kept = live[others]
            yield left[kept], others[kept]


def path_of(folder: Path, space: Space) -> Path:
    """Where the index of a space lies."""
    return (folder / space.file).with_suffix(".usearch")


def opened(folder: Path, space: Space) -> Index | None:
    """The index of a space; None if there is none, too many rows came later, or usearch is not installed."""
    path = path_of(folder, space)
    if not path.is_file():
        return None
    with suppress(ImportError, RuntimeError, ValueError, OSError):
        from usearch.index import Index as Found

        found: Any = Found.restore(str(path), view=True)
        fits = found is not None and found.ndim == space.width and len(found) <= space.rows
        if fits and space.rows - len(found) <= max(1000, _LATER * space.rows):
            return Index(found, len(found))
    return None


def build(folder: Path, space: Space, progress: Callable[[float], None] = lambda _: None) -> Index:
    """Build the index of a space, or bring it up to date. Raises UsageError: usearch is not installed; OutputError."""
    try:
        from usearch.index import Index as Found
    except ImportError as error:
        raise UsageError("an index needs the package usearch, which is missing", install_extra("search")) from error
    path, found = path_of(folder, space), None
    if path.is_file():
        with suppress(RuntimeError, ValueError, OSError):
            found = Found.restore(str(path))
    if found is None or found.ndim != space.width or len(found) > space.rows:
        found = Found(ndim=space.width, metric="cos", dtype="i8")
    for first in range(len(found), space.rows, _AT_ONCE):
        last = min(space.rows, first + _AT_ONCE)
        found.add(np.arange(first, last), np.ascontiguousarray(space.vectors[first:last]))
        progress(last / space.rows)
    part = path.with_suffix(f".{os.getpid()}")
    with writing(path):
        try:
            found.save(str(part))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return Index(found, len(found))
