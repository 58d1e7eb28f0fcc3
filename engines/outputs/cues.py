"""Subtitles of a transcript: words become cues of a few short lines, cut at pauses, ends of sentences and commas.

Chinese and Japanese characters are as wide as two letters, and count so. Each is a word, because no spaces show words.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_ENDS = (".", "!", "?", "。", "！", "？", "…")
_COMMAS = (",", ";", ":", "，", "、", "；", "：")
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_STOP = "、-】〕-〟！），．：；？］｝～”’…"
_WORD = re.compile(rf"\s*(?:[{_IDEOGRAPH}][{_STOP}]*|[^\s{_IDEOGRAPH}]+)")
_LEAST_SHARE = 0.4  # of a cue, that has to be before a comma for a cut there


class Spoken(NamedTuple):
    """A word or a text, with its space and punctuation, and its seconds."""

    text: str
    start: float
    end: float


class Cue(NamedTuple):
    """Lines that are shown from `start` to `end`, in seconds.

    `speaker` says them, if that is known; `named`: the first line begins with the name and a colon.
    """

    start: float
    end: float
    lines: tuple[str, ...]
    speaker: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class CueRules:
    """A cue has at most `lines` lines of `chars` letters, lasts at most `most_s`, and has no pause of `pause_s`."""

    chars: int
    lines: int
    most_s: float
    pause_s: float


def words_of(text: str) -> list[str]:
    """Return the words of a text, each with the space before it; Chinese characters with the punctuation behind them.

    The first word has a space.
    """
    return _WORD.findall(f" {text.strip()}")


def cues_of(words: Sequence[Spoken], rules: CueRules) -> Iterator[Cue]:
    """Yield the cues of words in order. A single word that is longer than a cue is a cue of its own."""
    held: list[Spoken] = []
    for word in words:
        if held and word.start - held[-1].end >= rules.pause_s:
            yield _cue(held, rules)
            held = []
        while held and not _fits([*held, word], rules):
            count = _best_cut(held)
            yield _cue(held[:count], rules)
            held = held[count:]
        held.append(word)
    if held:
        yield _cue(held, rules)


def lines_of(texts: Sequence[str], chars: int) -> tuple[str, ...]:
    """Return texts, each with its own space in front, as lines of at most so many letters where they can be."""
    lines = [""]
    for text in texts:
        if lines[-1] and _width((lines[-1] + text).strip()) > chars:
            lines.append("")
        lines[-1] += text
    return tuple(stripped for line in lines if (stripped := " ".join(line.split())))


def _width(text: str) -> int:
    """Return how many letters a text is wide."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _fits(words: Sequence[Spoken], rules: CueRules) -> bool:
    short = len(lines_of([word.text for word in words], rules.chars)) <= rules.lines
    return short and words[-1].end - words[0].start <= rules.most_s


def _best_cut(words: Sequence[Spoken]) -> int:
    """Return how many words go into the next cue: up to the last end of a sentence, else a comma, else all."""
    total = sum(len(word.text) for word in words)
    for marks, least in ((_ENDS, 0.0), (_COMMAS, _LEAST_SHARE)):
        length, best = 0, 0
        for number, word in enumerate(words, 1):
            length += len(word.text)
            if word.text.rstrip("\"'”’)]").endswith(marks) and length >= least * total:
                best = number
        if best:
            return best
    return len(words)


def _cue(words: Sequence[Spoken], rules: CueRules) -> Cue:
    return Cue(words[0].start, words[-1].end, lines_of([word.text for word in words], rules.chars))
