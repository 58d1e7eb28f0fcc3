"""Beam search over the tokens of texts, many texts at a time; it knows nothing of the network.

Source: OpenNMT/CTranslate2, src/decoding.cc (BeamSearch, GreedySearch), whose rules these are: of twice as many
candidates as beams, those that end are put aside, and others take their places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.part import Array
from engines.speech.model import Search


@dataclass(frozen=True, slots=True)
class Ended:
    """A text that ended: its tokens, and the sum of the log probabilities of these and of the end."""

    tokens: tuple[int, ...]
    total: float


class Beams:
    """The beams of `texts` texts. `most` is how many tokens a text may have, `end` the token that ends one."""

    def __init__(self, texts: int, search: Search, end: int, most: int) -> None:
        self._search = search
        self._end = end
        self._most = most
        self._enough = max(1, round(search.beam * search.patience)) if search.beam > 1 else 1
        self._ended: list[list[Ended]] = [[] for _ in range(texts)]
        self._closed = [False] * texts
        self._best_ended = [False] * texts
        self.tokens = np.zeros((texts, 0), np.int64)
        """Of each beam, `[texts x beam, step]`; before the first step, of each text."""
        self.totals = np.zeros(texts, np.float32)
        """The sum of the log probabilities of each row of `tokens`."""

    @property
    def done(self) -> bool:
        """Whether all texts have ended."""
        return all(self._closed)

    @property
    def candidates(self) -> int:
        """How many of the best continuations of each text `advance` takes."""
        return 2 * self._search.beam

    def advance(self, totals: Array, choices: Array, vocabulary: int) -> Array:
        """Take the best candidates; return, of each beam, the row of `tokens` before this step that it continues.

        `totals [texts, candidates]` float32 falls along a row; `choices` int64 is `row * vocabulary + token`, where row
        counts those of the text.
        """
        texts, beam = len(totals), self._search.beam
        rows = len(self.tokens) // texts
        tokens = choices % vocabulary
        sources = choices // vocabulary + rows * np.arange(texts)[:, None]
        last = self.tokens.shape[1] + 1 == self._most
        kept = np.tile(np.arange(beam), (texts, 1))
        for text in range(texts):
            if self._closed[text]:
                continue
            spare = iter(np.flatnonzero(tokens[text, beam:] != self._end) + beam)
            for place in range(beam):
                ends = tokens[text, place] == self._end
                if not (ends or last):
                    continue
                found = self.tokens[sources[text, place]].tolist() + ([] if ends else [int(tokens[text, place])])
                self._ended[text].append(Ended(tuple(found), float(totals[text, place])))
                kept[text, place] = next(spare, place)
            self._closed[text] = last or self._is_enough(text, bool(tokens[text, 0] == self._end))
        chosen = np.take_along_axis(sources, kept, 1).reshape(-1)
        added = np.take_along_axis(tokens, kept, 1).reshape(-1, 1)
        self.tokens = np.concatenate([self.tokens[chosen], added], 1)
        self.totals = np.take_along_axis(totals, kept, 1).reshape(-1).astype(np.float32)
        return np.asarray(chosen)

    def _is_enough(self, text: int, best_ends: bool) -> bool:
        if self._search.length_penalty == 0:
            self._best_ended[text] |= best_ends
            return self._best_ended[text]  # without a penalty no other text can become better
        return len(self._ended[text]) >= self._enough

    def best(self) -> list[Ended]:
        """The most likely text of each, by its total and `length_penalty`."""
        return [max(ended, key=self._score) for ended in self._ended]

    def _score(self, ended: Ended) -> float:
        if not ended.tokens and self._search.length_penalty:
            return -np.inf  # as CTranslate2, which divides by zero
        return float(ended.total / len(ended.tokens) ** self._search.length_penalty)


def penalised(logits: Array, tokens: Array, search: Search) -> Array:
    """Return `logits [rows, vocabulary]` float32 with the penalties of a search for `tokens [rows, step]`."""
    made = logits.copy()
    if search.repetition_penalty != 1 and tokens.size:
        found = np.take_along_axis(logits, tokens, 1)
        penalty = np.float32(search.repetition_penalty)
        np.put_along_axis(made, tokens, np.where(found < 0, found * penalty, found / penalty), 1)
    if search.no_repeat:
        for row, forbidden in enumerate(_repeating(tokens, search.no_repeat)):
            made[row, forbidden] = -np.inf
    return made


def _repeating(tokens: Array, run: int) -> Sequence[list[int]]:
    """Of each row, the tokens that would make its last `run` tokens those of an earlier place."""
    length = tokens.shape[1]
    if length < run:
        return [[]] * len(tokens)
    return [
        [row[at + run - 1] for at in range(length - run + 1) if row[at : at + run - 1] == row[length - run + 1 :]]
        for row in tokens.tolist()
    ]
