"""Finds the pictures of a library whose vectors are most like a given one, by their cosine."""

from dataclasses import dataclass

import numpy as np

from engines.library.spaces import Space
from engines.part import Array

BLOCK_ROWS = 1 << 16  # of vectors that are compared at a time: 128 MB of 512 float32


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found: its media, its seconds from the first frame, or None for an image, and its cosine."""

    media: str
    time_s: float | None
    score: float
    row: int


def scores_of(space: Space, vector: Array) -> Array:
    """The cosines of all rows with a vector `[D]` of unit length, `[rows]` float32; -inf for rows that do not count."""
    scores = np.full(space.rows, -np.inf, np.float32)
    for first in range(0, space.rows, BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        scores[rows] = space.vectors[rows] @ vector
    live = space.is_live
    scores[~live] = -np.inf
    return scores


def nearest(space: Space, vector: Array, most: int, every: bool = False) -> list[Hit]:
    """The `most` pictures with the highest cosine, the best one of each media, or `every` picture.

    Of equal cosines, the picture that comes first in the library comes first.
    """
    return best_of(space, scores_of(space, vector), most, every)


def best_of(space: Space, scores: Array, most: int, every: bool = False) -> list[Hit]:
    """The hits by scores of all rows, `[rows]`; -inf for those that are no candidates."""
    rows = space.live if every else _best_rows(space, scores)
    found = scores[rows]
    rows, found = rows[found > -np.inf], found[found > -np.inf]
    if len(rows) > most:  # all candidates that may be among them, with those equal to the last
        least = np.partition(found, len(found) - most)[len(found) - most]
        rows, found = rows[found >= least], found[found >= least]
    order = np.lexsort((rows, -found))[:most]
    return [hit(space, int(rows[at]), float(found[at])) for at in order]


def hit(space: Space, row: int, score: float) -> Hit:
    """A row as a hit."""
    time = float(space.times[row])
    return Hit(space.names[space.media[row]], None if np.isnan(time) else time, score, row)


def _best_rows(space: Space, scores: Array) -> Array:
    """The row with the highest score of each media that has rows."""
    if not len(space.live):
        return space.live
    starts = space.starts[:-1][np.diff(space.starts) > 0]
    ordered = scores[space.live]
    tops = np.maximum.reduceat(ordered, starts)
    group = np.repeat(np.arange(len(starts)), np.diff([*starts, len(ordered)]))
    places = np.flatnonzero(ordered == tops[group])
    _, first = np.unique(group[places], return_index=True)
    return np.asarray(space.live[places[first]])


def counts(space: Space) -> tuple[int, int]:
    """How many pictures and how many media count."""
    return len(space.live), int((np.diff(space.starts) > 0).sum())
