"""From a sentence to the symbols that a model takes: phonemes of espeak-ng with the sentence's punctuation, or letters.

Source of Kokoro's spelling: misaki, which its voices were trained with, writes diphthongs and affricates as one letter.
"""

import re
import unicodedata
from collections.abc import Sequence

from engines.speaking.espeak import espeak
from engines.speaking.pieces import pieces_of
from engines.speaking.pinyin import spelled
from schemas.errors import ModelError
from schemas.speech import SpeechSpec

_ASCII = str.maketrans(
    {
        **dict(zip("\u3001\uff0c\uff1b\uff1a\u3002\uff0e\uff01\uff1f\uff61", ",,;:..!?.", strict=True)),
        **dict.fromkeys('"\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f()[]{}\uff08\uff09', " "),
        **dict.fromkeys("\u2019\u2018\u02bc", "'"),
        **dict.fromkeys("*_`~|\\", " "),
    }
)
_MARK = re.compile(r"\s*([;:,!?\u2026]+(?=\s|$)|\.{2,}|\.(?=\s*$)|\s(?:-{1,3}|\u2013)(?=\s)|\u2014+)\s*")
_WRITTEN = {"-": ",", "\u2013": ",", "--": "\u2014", "---": "\u2014", "...": "\u2026"}  # marks
_TIE = "^"
_SYLLABLE_END = re.compile(r"[a-z\u00fc]+[1-5]")
_ALL = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "d^z": "ʣ",
    "d^ʒ": "ʤ",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "ə^ʊ": "Q",
    "t^s": "ʦ",
    "t^ʃ": "ʧ",
    "ɔ^ɪ": "Y",
}
_ENGLISH = {
    **_ALL,
    "ə^l": "ᵊl",
    "ɚ": "əɹ",
    "r": "ɹ",
    "x": "k",
    "ç": "k",
    "ɐ": "ə",
    "ɬ": "l",
    "\u0303": "",
    "\u0329": "",
}
_AMERICAN = {**_ENGLISH, "ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ː": "", "ɾ": "T", "ʔ": "t", "e": "A"}
_BRITISH = {**_ENGLISH, "e^ə": "ɛː", "i^ə": "ɪə", "ɪ^ə": "ɪə", "ʊ^ə": "ʊə", "ʔ": "t", "e": "A"}


def symbols_of(sentence: str, speech: SpeechSpec, language: str) -> list[list[int]]:
    """Return the symbols of a sentence, of at most `speech.most` each time; none if no character has one.

    Raises PluginMissing, UsageError as `engines.speaking.espeak.espeak` does.
    """
    if speech.alphabet == "pieces":
        return pieces_of(sentence, speech)
    letters = [known for letter in spell(sentence, speech.alphabet, language) if (known := _known(letter, speech))]
    room = speech.most - len(speech.begin) - len(speech.end)
    made = []
    while any(not letter.isspace() for letter, _ in letters):
        count = _fitting(letters, room)
        inner = [number for _, symbols in letters[:count] for number in symbols]
        made.append([*speech.begin, *inner, *speech.end])
        letters = letters[count:]
    return made


def spell(sentence: str, alphabet: str, language: str) -> str | list[str]:
    """Return a sentence in the alphabet of a model: its letters, of "pinyin" symbols of several letters."""
    text = unicodedata.normalize("NFC", sentence)
    if alphabet == "pinyin":
        return spelled(text, lambda piece: _phonemes(piece.translate(_ASCII), "ipa", language))
    text = text.translate(_ASCII)
    if alphabet == "letters":
        return " ".join(text.casefold().split())
    return _phonemes(text, alphabet, language)


def _phonemes(text: str, alphabet: str, language: str) -> str:
    """Return the phonemes of a text with its punctuation."""
    tie, found, start = _TIE if alphabet == "misaki" else "", [], 0
    for mark in [*_MARK.finditer(text), None]:
        chunk = text[start : mark.start() if mark else len(text)]
        words = espeak(chunk, language, tie) if any(map(str.isalnum, chunk)) else ""
        sign = mark[1].strip() if mark else ""
        found.append(words + _WRITTEN.get(sign, sign))
        start = mark.end() if mark else start
    joined = " ".join(each for each in found if each)
    return _misaki(joined, language) if alphabet == "misaki" else joined


def voice_weights(given: str | dict[str, float], speech: SpeechSpec) -> list[float]:
    """Return the share of each voice of a model, 1 together. `given`: a name, names with weights, or "": the first.

    Raises ModelError for a voice that is not there, and for a mixture that the model does not blend.
    """
    wanted = {given or speech.voices[0]: 1.0} if isinstance(given, str) else given
    if unknown := [name for name in wanted if name not in speech.voices]:
        there = ", ".join(speech.voices[:20]) + (" ..." if len(speech.voices) > 20 else "")
        raise ModelError(f"the model has no voice {unknown[0]}", f"it has {there or 'one, without a name'}")
    total = sum(wanted.values())
    if total <= 0 or min(wanted.values()) < 0:
        raise ModelError("the weights of voices are not above 0", "write voice = { NAME = 0.5, OTHER = 0.5 }")
    if sum(weight > 0 for weight in wanted.values()) > 1 and not speech.blends:
        raise ModelError("the model does not blend voices", "name one")
    return [wanted.get(name, 0.0) / total for name in speech.voices]


def _misaki(text: str, language: str) -> str:
    table = _ALL
    if language.startswith("en"):
        table = _BRITISH if language.startswith("en-gb") else _AMERICAN
    for old in sorted(table, key=len, reverse=True):
        text = text.replace(old, table[old])
    return text.replace(_TIE, "").replace("-", "")


def _known(letter: str, speech: SpeechSpec) -> tuple[str, list[int]] | None:
    """Return a letter with its symbols and what stands after each, its decomposed form first; None: it has none."""
    if len(letter) > 1:
        return (letter, [*speech.symbols[letter], *speech.after]) if letter in speech.symbols else None
    pieces = unicodedata.normalize("NFD", letter)
    if not all(piece in speech.symbols for piece in pieces):
        composed = unicodedata.normalize("NFC", letter)
        pieces = composed if composed in speech.symbols else "".join(each for each in pieces if each in speech.symbols)
    numbers = [number for piece in pieces for number in (*speech.symbols[piece], *speech.after)]
    return (letter, numbers) if numbers else None


def _fitting(letters: Sequence[tuple[str, list[int]]], room: int) -> int:
    """Return how many letters fit, up to the end of a word or of a syllable of pinyin where there is one."""
    used, best = 0, 0
    for count, (letter, symbols) in enumerate(letters):
        used += len(symbols)
        if used > room:
            return best or max(1, count)
        best = count + 1 if letter.isspace() or _SYLLABLE_END.fullmatch(letter) else best
    return len(letters)
