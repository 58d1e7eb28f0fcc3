"""Finds near-duplicates in a library: media that show the same pictures, by the cosines of their vectors."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engines.library.index import Index
from engines.library.spaces import Space
from engines.part import Array
from schemas.errors import UsageError

_BLOCK_ROWS = 4096
_MOST_PAIRS = 20_000_000  # of pictures that are alike: 0.5 GB
SHARE = 0.5  # of the pictures of the media that has fewer


@dataclass(frozen=True, slots=True)
class Copy:
    """A media of a group, by its number; its highest cosine with a picture of the first one, and where that is.

    `time_s` and `original_s`: when the two pictures are shown; NaN for images.
    """

    media: int
    score: float
    time_s: float
    original_s: float


@dataclass(frozen=True, slots=True)
class Group:
    """Near-duplicates: `first` is the media with the most pictures, of equal ones the first by its name."""

    first: int
    copies: tuple[Copy, ...]


def find_duplicates(space: Space, least: float, index: Index | None = None) -> list[Group]:
    """Find the groups of near-duplicates, those with most members first.

    Two media are near-duplicates if at least half of the pictures of the one that has fewer are like pictures of the
    other: their cosine is at least `least`. Media that are near-duplicates of one are in one group. All pairs are
    compared, or those that `index` proposes. Raises UsageError if too many are alike.
    """
    pairs = [each for each in (_proposed(space, least, index) if index else _all_pairs(space, least)) if len(each)]
    if not pairs:
        return []
    links = _links(space, np.concatenate(pairs))
    groups = _joined(links)
    made = [_group(space, members, links) for members in groups]
    return sorted(made, key=lambda group: (-len(group.copies), space.names[group.first]))


@dataclass(frozen=True, slots=True)
class _Link:
    """Two media that are near-duplicates, and the two rows that are most alike."""

    rows: tuple[int, int]
    score: float


_PAIR = np.dtype([("a", np.int64), ("b", np.int64), ("score", np.float32)])


def _all_pairs(space: Space, least: float) -> Iterator[Array]:
    """Pairs of rows of different media from the cosine `least` on, `[P]` of `_PAIR`, block by block."""
    total = 0
    for first in range(0, len(space.live), _BLOCK_ROWS):
        rows = space.live[first : first + _BLOCK_ROWS]
        left = np.ascontiguousarray(space.vectors[rows])
        for second in range(first, len(space.live), _BLOCK_ROWS):
            others = space.live[second : second + _BLOCK_ROWS]
            scores = left @ np.ascontiguousarray(space.vectors[others]).T
            a, b = np.nonzero(scores >= least)
            pairs = _pairs(space, rows[a], others[b], scores[a, b])
            if second == first:
                pairs = pairs[pairs["a"] < pairs["b"]]
            total = _checked(total + len(pairs), least)
            yield pairs


def _proposed(space: Space, least: float, index: Index) -> Iterator[Array]:
    total = 0
    for rows, others in index.neighbours(space):
        scores = np.einsum("ij,ij->i", space.vectors[rows], space.vectors[others])
        alike = scores >= least
        pairs = _pairs(space, rows[alike], others[alike], scores[alike])
        total = _checked(total + len(pairs), least)
        yield pairs


def _pairs(space: Space, a: Array, b: Array, scores: Array) -> Array:
    apart = space.media[a] != space.media[b]
    made = np.empty(int(apart.sum()), _PAIR)
    made["a"], made["b"], made["score"] = a[apart], b[apart], scores[apart]
    return made


def _checked(total: int, least: float) -> int:
    if total > _MOST_PAIRS:
        what = f"more than {_MOST_PAIRS // 1_000_000} million pairs of pictures have a similarity of {least:g} or more"
        raise UsageError(what, "give a higher --similarity")
    return total


def _links(space: Space, pairs: Array) -> dict[tuple[int, int], _Link]:
    """Media that are near-duplicates, as (the one with more pictures, the other)."""
    sizes = np.diff(space.starts)
    media_a, media_b = space.media[pairs["a"]], space.media[pairs["b"]]
    swap = (sizes[media_a] < sizes[media_b]) | ((sizes[media_a] == sizes[media_b]) & (media_a > media_b))
    large, small = np.where(swap, media_b, media_a), np.where(swap, media_a, media_b)
    row_large, row_small = np.where(swap, pairs["b"], pairs["a"]), np.where(swap, pairs["a"], pairs["b"])
    order = np.lexsort((row_small, small, large))
    large, small, row_small, row_large = (each[order] for each in (large, small, row_small, row_large))
    scores = pairs["score"][order]
    ends = np.flatnonzero(np.r_[(np.diff(large) != 0) | (np.diff(small) != 0), True]) + 1
    found = {}
    for begin, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
        key = int(large[begin]), int(small[begin])
        if len(np.unique(row_small[begin:end])) >= SHARE * sizes[key[1]]:
            best = begin + int(scores[begin:end].argmax())
            found[key] = _Link((int(row_large[best]), int(row_small[best])), float(scores[best]))
    return found


def _joined(links: dict[tuple[int, int], _Link]) -> list[list[int]]:
    """The media that are linked, directly or by others."""
    parent: dict[int, int] = {}

    def root(media: int) -> int:
        while parent.setdefault(media, media) != media:
            parent[media] = media = parent[parent[media]]
        return media

    for large, small in links:
        parent[root(small)] = root(large)
    groups: dict[int, list[int]] = defaultdict(list)
    for media in sorted(parent):
        groups[root(media)].append(media)
    return list(groups.values())


def _group(space: Space, members: list[int], links: dict[tuple[int, int], _Link]) -> Group:
    sizes = np.diff(space.starts)
    first = min(members, key=lambda media: (-sizes[media], space.names[media]))
    copies = [_copy(space, media, first, links) for media in members if media != first]
    return Group(first, tuple(sorted(copies, key=lambda copy: (-copy.score, space.names[copy.media]))))


def _copy(space: Space, media: int, first: int, links: dict[tuple[int, int], _Link]) -> Copy:
    """A member; of one that is no near-duplicate of the first itself, what it has in common with it."""
    link = links.get((first, media))
    if link is None and (other := links.get((media, first))) is not None:
        link = _Link((other.rows[1], other.rows[0]), other.score)
    if link is None:
        link = _best(space, first, media)
    original, own = link.rows
    return Copy(media, link.score, float(space.times[own]), float(space.times[original]))


def _best(space: Space, first: int, media: int) -> _Link:
    """The two rows of two media that are most alike."""
    a, b = (space.live[space.starts[each] : space.starts[each + 1]] for each in (first, media))
    best, score = (int(a[0]), int(b[0])), -2.0
    for begin in range(0, len(a), _BLOCK_ROWS):
        scores = space.vectors[a[begin : begin + _BLOCK_ROWS]] @ space.vectors[b].T
        at = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[at] > score:
            best, score = (int(a[begin + at[0]]), int(b[at[1]])), float(scores[at])
    return _Link(best, score)
