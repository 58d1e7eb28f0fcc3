"""From the tokens of FunASR's models to words: Chinese characters stand by themselves, pieces of words are joined.

Sources: FunASR, postprocess_utils.py (sentence_postprocess, abbr_dispose); k2-fsa/sherpa-onnx for the spaces between
words of letters and Chinese characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.speech.words import Word

_MORE = "@@"  # behind a piece that the next one continues
_SPACE = "▁"  # SentencePiece's, in front of a word
_NO_TEXT = frozenset(("<blank>", "<s>", "</s>", "<unk>", "<OOV>", "<sil>"))
_IDEOGRAPHS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_TAG = re.compile(r"<\|.*\|>")


@dataclass(frozen=True, slots=True)
class Piece:
    """A token: its text, begin and end in seconds, and its probability."""

    text: str
    start: float = 0.0
    end: float = 0.0
    probability: float = 1.0


def words_of_bpe(pieces: Sequence[Piece]) -> list[Word]:
    """Return the words of Paraformer's tokens: pieces with `@@` are joined, single letters in a row are in capitals."""
    words: list[Word] = []
    counts: list[int] = []
    joining = False
    for piece in pieces:
        if piece.text in _NO_TEXT:
            continue
        more = piece.text.endswith(_MORE)
        text = piece.text.removesuffix(_MORE)
        if joining and _is_latin(text):
            _join(words, counts, text, piece)
        else:
            space = bool(words) and (_is_latin(text) or _is_latin(words[-1].text.strip()))
            _begin(words, counts, f" {text}" if space else text, piece)
        joining = more
    return _means(*_abbreviations(words, counts))


def words_of_sentencepiece(pieces: Sequence[Piece]) -> list[Word]:
    """Return the words of SenseVoice's tokens: punctuation belongs to the word before it, tags are no text."""
    words: list[Word] = []
    counts: list[int] = []
    for piece in pieces:
        if piece.text in _NO_TEXT or _TAG.fullmatch(piece.text):
            continue
        text = piece.text.replace(_SPACE, " ")
        if not words or text.startswith(" ") or _divides(words[-1].text, text):
            _begin(words, counts, text, piece)
        else:
            _join(words, counts, text, piece)
    return [word for word in _means(words, counts) if word.text.strip()]


def _divides(before: str, text: str) -> bool:
    """Whether a piece without a space begins a word: a Chinese character, and letters behind one."""
    last = next((each for each in reversed(before) if each.isalnum()), "")
    return bool(before.strip()) and text[:1].isalnum() and (_is_ideograph(text[0]) or _is_ideograph(last))


def _begin(words: list[Word], counts: list[int], text: str, piece: Piece) -> None:
    words.append(Word(text, piece.start, piece.end, piece.probability))
    counts.append(1)


def _join(words: list[Word], counts: list[int], text: str, piece: Piece) -> None:
    word = words[-1]
    words[-1] = Word(word.text + text, word.start, piece.end, word.probability + piece.probability)
    counts[-1] += 1


def _means(words: Sequence[Word], counts: Sequence[int]) -> list[Word]:
    return [replace(word, probability=word.probability / count) for word, count in zip(words, counts, strict=True)]


def _abbreviations(words: Sequence[Word], counts: Sequence[int]) -> tuple[list[Word], list[int]]:
    """Join single letters that follow each other: `n b a` is NBA."""
    made: list[Word] = []
    joined: list[int] = []
    letters = [len(word.text.strip()) == 1 and _is_latin(word.text.strip()) for word in words]
    letters = [each and word.text.strip().isalpha() for each, word in zip(letters, words, strict=True)]
    for number, (word, count) in enumerate(zip(words, counts, strict=True)):
        inside = letters[number] and number > 0 and letters[number - 1]
        first = letters[number] and number + 1 < len(words) and letters[number + 1]
        text = word.text.upper() if inside or first else word.text
        if inside:
            _join(made, joined, text.strip(), Piece("", word.start, word.end, word.probability))
        else:
            made.append(replace(word, text=text))
            joined.append(count)
    return made, joined


def _is_latin(text: str) -> bool:
    """Whether a text is written with spaces around it, as ASCII and letters with accents are."""
    return bool(text) and ord(text[0]) < 0x2E80


def _is_ideograph(character: str) -> bool:
    """Whether a character is Chinese or Japanese, whose words have no spaces."""
    return any(low <= ord(character) <= high for low, high in _IDEOGRAPHS)
