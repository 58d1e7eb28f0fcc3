"""Speakers of a transcript: vectors of voices become labels, and segments are cut where the speaker changes.

Vectors are whole numbers, whose products are summed without rounding: labels depend on them and their order alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from engines.clusters import clustering_library, groups_of
from engines.part import Array
from engines.speech.voices import SCALE
from engines.vectors import unit
from schemas.errors import OutputError

_AT_ONCE = 2000  # vectors that are compared with each other; groups of more are compared by their means
_ODD = 20  # groups at most that are not those of a known speaker
_FEW = 4  # a group of fewer windows joins the one that it is most similar to


class Speakers:
    """Takes the segments and voices of a media in order; `labelled` gives the segments with their speakers.

    `least`: the mean similarity of the voices of a speaker. `count`: how many speakers there are, 0: unknown.
    """

    def __init__(self, least: float, count: int) -> None:
        """Raises PluginMissing without scipy: `labelled` needs it, when all the work is done."""
        clustering_library()
        self._least, self._count = least, count
        self._rows: list[dict[str, Any]] = []
        self._voices: list[Array] = []
        self._heard: list[Array] = []

    def add(self, rows: Sequence[dict[str, Any]], voices: Array, heard: Array) -> None:
        """Take a part: `voices [M, D]` int16, and the seconds `heard [M, 2]` of each. Raises OutputError."""
        lengths = {each.shape[1] for each in self._voices}
        good = voices.ndim == 2 and voices.dtype == np.int16 and lengths <= {voices.shape[1]}
        if not good or heard.shape != (len(voices), 2) or not np.isfinite(heard).all():
            raise OutputError("a result of transcript has voices of another form", "publish its job again")
        self._rows += rows
        self._voices.append(voices)
        self._heard.append(heard)

    def labelled(self) -> Iterator[dict[str, Any]]:
        """Yield the segments, each of one speaker."""
        if not sum(map(len, self._voices)):
            yield from self._rows
            return
        middles = np.concatenate(self._heard).mean(axis=1)
        order = np.argsort(middles, kind="stable")
        labels = labels_of(np.concatenate(self._voices)[order], self._least, self._count)
        times = middles[order]
        for row in self._rows:
            yield from _cut(row, times, labels)


def labels_of(voices: Array, least: float, count: int = 0) -> Array:
    """Return the number of the speaker of each of `voices [N, D]` int16, from 0 on in the order of first speech."""
    labels, means = np.zeros(len(voices), np.int64), [voices[:0]]
    for first in range(0, len(voices), _AT_ONCE) if len(voices) > _AT_ONCE else ():
        block = voices[first : first + _AT_ONCE]
        found = groups_of(_similarity(block, block), least)
        labels[first : first + _AT_ONCE] = found + sum(map(len, means))
        means.append(_means(block, found))
    joined = np.concatenate(means)
    if len(joined):
        return _by_first(_without_few(voices, _grouped(joined, np.bincount(labels), least, count)[labels]))
    return _by_first(_without_few(voices, _grouped(voices, np.ones(len(voices)), least, count)))


def _grouped(vectors: Array, windows: Array, least: float, count: int) -> Array:
    """The groups of vectors of so many windows each; with a `count` the first cut that has as many that are not few."""
    similarity = _similarity(vectors, vectors)
    for parts in range(count, min(len(vectors), count + _ODD)) if count else ():
        found = groups_of(similarity, least, parts)
        if (np.bincount(found, windows) >= _FEW).sum() == count:
            return found
    return groups_of(similarity, least, count)


def _similarity(some: Array, others: Array) -> Array:
    """The cosines of int16 vectors; sums of whole numbers below 2**53 are exact."""
    return np.asarray(some.astype(np.float64) @ others.astype(np.float64).T / SCALE**2)


def _means(voices: Array, labels: Array) -> Array:
    """The mean of each group's vectors, of unit length."""
    sums = np.zeros((int(labels.max()) + 1, voices.shape[1]))
    np.add.at(sums, labels, voices.astype(np.float64))
    return np.rint(unit(sums).astype(np.float64) * SCALE).astype(np.int16)


def _without_few(voices: Array, labels: Array) -> Array:
    """Have groups of few windows join others, if there are larger ones. Returns numbers without gaps."""
    labels = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(labels)
    large = np.flatnonzero(sizes >= _FEW)
    if not len(large):
        return labels
    near = _similarity(_means(voices, labels), _means(voices, labels)[large])
    joined = np.where(sizes >= _FEW, np.arange(len(sizes)), large[near.argmax(axis=1)])
    return np.asarray(np.unique(joined[labels], return_inverse=True)[1])


def _by_first(labels: Array) -> Array:
    """Number labels by their first places."""
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[which])


def _cut(row: Mapping[str, Any], times: Array, labels: Array) -> Iterator[dict[str, Any]]:
    """Yield the pieces of a segment by speaker; a word has the speaker of the window whose middle is nearest."""
    words = row.get("words")
    if not words:
        inside = labels[(times >= row["start"]) & (times <= row["end"])]
        label = int(np.bincount(inside).argmax()) if len(inside) else _nearest(row, times, labels)
        yield _with_speaker(row, label)
        return
    for label, group in groupby(words, lambda word: _nearest(word, times, labels)):
        said = list(group)
        text = "".join(word["word"] for word in said).strip()
        piece = {**row, "start": said[0]["start"], "end": said[-1]["end"], "text": text, "words": said}
        yield _with_speaker(piece, label)


def _nearest(span: Mapping[str, Any], times: Array, labels: Array) -> int:
    middle = (float(span["start"]) + float(span["end"])) / 2
    after = min(int(np.searchsorted(times, middle)), len(times) - 1)
    before = max(0, after - 1)
    return int(labels[before if middle - times[before] <= times[after] - middle else after])


def _with_speaker(row: Mapping[str, Any], label: int) -> dict[str, Any]:
    """The segment with its speaker, in front of the text."""
    begin = {name: row[name] for name in ("start", "end")}
    return {**begin, "speaker": f"speaker {label + 1}", **row}
