"""Text as the pieces of a SentencePiece vocabulary of the kind unigram: the split whose scores have the largest sum.

Sources: SentencePiece (spaces are written as U+2581, one stands in front; what no piece has becomes bytes), and
kyutai-labs/pocket-tts, text_chunking.py, for what a sentence must look like: a capital letter first, a mark at its end,
and in its first release spaces before a short one.
"""

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence

from schemas.speech import SpeechSpec

SPACE = "\u2581"
_LONGEST = 64  # characters of a piece; SentencePiece makes none above 16
_ENDS = (".", "!", "?", "\u2026")
_WEAK = tuple(",;:-\u2013\u2014")
_CLOSING = "\"'\u201d\u2019)]\u00bb"
_FEW_WORDS, _SPACES = 5, 8


def pieces_of(sentence: str, speech: SpeechSpec) -> list[list[int]]:
    """Return the numbers of the pieces of a sentence, of at most `speech.most` each time, cut between words, best
    behind a comma; none where nothing can be read.
    """
    words = unicodedata.normalize("NFKC", sentence).split()
    if not any(any(map(str.isalnum, word)) for word in words):
        return []
    sizes = [len(split(SPACE + word, speech)) for word in words]
    made = []
    while words:
        count = _fitting(words, sizes, speech.most - 2)  # a mark and a capital letter may come to it
        numbers = split(SPACE + _prepared(words[:count], speech.padded).replace(" ", SPACE), speech)
        made += [numbers[first : first + speech.most] for first in range(0, len(numbers), speech.most)]
        words, sizes = words[count:], sizes[count:]
    return made


def _fitting(words: Sequence[str], sizes: Sequence[int], room: int) -> int:
    """Return how many words fit, at least one; up to the last comma where that is behind the middle."""
    total, count = 0, 0
    while count < len(words) and (total := total + sizes[count]) <= room:
        count += 1
    if count == len(words):
        return count
    commas = [number for number in range(count // 2 + 1, count + 1) if words[number - 1].endswith((*_WEAK, *_ENDS))]
    return commas[-1] if commas else max(1, count)


def _prepared(words: Sequence[str], padded: bool) -> str:
    """Return words as the model was trained with them."""
    text = " ".join(words)
    text = text[0].upper() + text[1:]
    core = text.rstrip(_CLOSING + " ")
    if core and not core.endswith(_ENDS):
        text = f"{core.rstrip(''.join(_WEAK))}.{text[len(core) :]}" if core.endswith(_WEAK) else f"{text}."
    return " " * _SPACES + text if padded and len(words) < _FEW_WORDS else text


def split(text: str, speech: SpeechSpec) -> list[int]:
    """Return the numbers of the pieces of a text, as SentencePiece splits it. What has no piece and no bytes is left
    out.
    """
    longest = min(_LONGEST, max(map(len, speech.scores), default=0))
    best = [0.0] + [-math.inf] * len(text)
    begins = [0] * (len(text) + 1)
    for first in range(len(text)):
        known = False
        for end in range(first + 1, min(first + longest, len(text)) + 1):
            score = speech.scores.get(text[first:end])
            if score is None:
                continue
            known = True
            if best[first] + score > best[end]:
                best[end], begins[end] = best[first] + score, first
        if not known:
            score = sum(speech.scores.get(byte, 0.0) for byte in _bytes(text[first]))
            if best[first] + score > best[first + 1]:
                best[first + 1], begins[first + 1] = best[first] + score, first
    cuts = [len(text)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    cuts.reverse()
    return [
        number
        for first, end in itertools.pairwise(cuts)
        for piece in _pieces(text[first:end], speech)
        for number in speech.symbols.get(piece, ())
    ]


def _pieces(part: str, speech: SpeechSpec) -> Iterator[str]:
    return iter((part,)) if part in speech.scores else _bytes(part)


def _bytes(text: str) -> Iterator[str]:
    """Yield the pieces that stand for the bytes of a text."""
    return (f"<0x{byte:02X}>" for byte in text.encode(errors="replace"))
