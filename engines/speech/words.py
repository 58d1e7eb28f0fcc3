"""When each word was spoken: from the path of an alignment to words with times.

Source: openai/whisper, whisper/timing.py, and SYSTRAN/faster-whisper, transcribe.py (find_alignment,
add_word_timestamps, merge_punctuations), with their corrections of words that are too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engines.speech.model import Aligned

_STATE_S = 0.02
_BEFORE = "\"'“¿([{-"  # punctuation that belongs to the word behind it
_BEHIND = "\"'.。,，!！?？:：”)]}、"  # and to the word before it
_ENDS = ".。!！?？"
_MOST_MEDIAN_S = 0.7
_BEYOND_S = 0.5  # a last word may end so much later than its sound


@dataclass(slots=True)
class Word:
    """A word as it stands in the text, with its space and punctuation; seconds, and the mean of its probabilities."""

    text: str
    start: float
    end: float
    probability: float


def words_of(aligned: Aligned, pieces: Sequence[tuple[str, int]]) -> list[Word]:
    """Return the words of a text with their times; `pieces` are `(text, number of tokens)` of each word."""
    if not pieces or not aligned.path:
        return []
    tokens, states = (np.array(side) for side in zip(*aligned.path, strict=True))
    jumps = np.concatenate([[True], np.diff(tokens) != 0])
    times = states[jumps] * _STATE_S  # when each token begins
    places = np.cumsum([0, *(count for _, count in pieces)])
    places = np.minimum(places, len(times) - 1)
    probabilities = np.array(aligned.probabilities)
    words = []
    for (text, _), first, last in zip(pieces, places[:-1].tolist(), places[1:].tolist(), strict=True):
        share = float(probabilities[first:last].mean()) if last > first else 0.0
        words.append(Word(text, float(times[first]), float(times[last]), share))
    return words


def corrected(words: list[Word], offset_s: float, duration_s: float, spoken_s: float) -> list[Word]:
    """Return the words of a chunk with punctuation joined to them and long ones shortened, `offset_s` later.

    The chunk lasts from `offset_s` for `duration_s`; the last word before it ended at `spoken_s`.
    """
    lengths = np.array([word.end - word.start for word in words])
    lengths = lengths[lengths.nonzero()]
    median_s = min(_MOST_MEDIAN_S, float(np.median(lengths))) if len(lengths) else 0.0
    if len(lengths):
        _shorten_at_sentences(words, 2 * median_s)
    words = _joined(words)
    for word in words:
        word.start += offset_s
        word.end += offset_s
    if words:
        _shorten_after_pause(words, median_s, spoken_s)
        last, end_s = words[-1], offset_s + duration_s
        if end_s > last.start and end_s + _BEYOND_S < last.end:
            last.end = max(last.start + median_s, end_s)
    return words


def _shorten_at_sentences(words: list[Word], most_s: float) -> None:
    """Beside the end of a sentence, a word is no longer than `most_s`."""
    for before, word in pairwise(words):
        if word.end - word.start > most_s:
            if word.text in _ENDS:
                word.end = word.start + most_s
            elif before.text in _ENDS:
                word.start = word.end - most_s


def _shorten_after_pause(words: list[Word], median_s: float, spoken_s: float) -> None:
    """The first two words after a pause are not longer than twice the median."""
    first, second, most_s = words[0], words[1] if len(words) > 1 else None, 2 * median_s
    if first.end - spoken_s <= 4 * median_s:
        return
    if first.end - first.start <= most_s and (second is None or second.end - first.start <= 2 * most_s):
        return
    if second is not None and second.end - second.start > most_s:
        first.end = second.start = max(second.end / 2, second.end - most_s)
    first.start = max(0.0, first.end - most_s)


def _joined(words: list[Word]) -> list[Word]:
    """Return the words with punctuation joined to its neighbour."""
    following = len(words) - 1
    for number in range(len(words) - 2, -1, -1):
        word = words[number]
        if word.text.startswith(" ") and word.text.strip() in _BEFORE:
            words[following].text = word.text + words[following].text
            word.text = ""
        else:
            following = number
    before = 0
    for number in range(1, len(words)):
        word = words[number]
        if not words[before].text.endswith(" ") and word.text in _BEHIND:
            words[before].text += word.text
            word.text = ""
        else:
            before = number
    return [word for word in words if word.text]
