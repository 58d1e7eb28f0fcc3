"""Whisper's tokens: prompts, the tokens that it may not give, texts, and the tokens of each word.

Source: openai/whisper, whisper/tokenizer.py, and SYSTRAN/faster-whisper, tokenizer.py.
"""

import string
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from engines.speech.model import MOST_TOKENS
from schemas.errors import ModelError

# codes in the order of the tokens of large-v3; earlier networks lack the last one
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi "
    "ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg "
    "sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
LANGUAGES = tuple(_CODES.split(" "))
TASKS = ("transcribe", "translate")
_WITHOUT_SPACES = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_HALF = MOST_TOKENS // 2
_UNDECODED = "\ufffd"
_SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
)
_NOTES = frozenset("♩♪♫♬♭♮♯")  # of which the first of several tokens is suppressed, too


class Tokens:
    """The tokens of one model; `tokenizer` is its tokenizers.Tokenizer. Raises ModelError if it is not Whisper's."""

    def __init__(self, tokenizer: Any, multilingual: bool) -> None:
        self._tokenizer = tokenizer
        self._multilingual = multilingual
        self.end = self._id("<|endoftext|>")
        self._no_times = self._id("<|notimestamps|>")

    def start(self, language: str, task: str) -> list[int]:
        """The tokens before a text without times: what is spoken, and what is wanted."""
        begin = [self._id("<|startoftranscript|>")]
        return [*begin, self._id(f"<|{language}|>"), self._id(f"<|{task}|>")] if self._multilingual else begin

    def prompt(self, language: str, task: str, before: str = "", words: str = "") -> list[int]:
        """The tokens before a text, behind `words` that are likely in it and a text `before` it; each may be empty."""
        given: list[int] = []
        if words or before:
            given.append(self._id("<|startofprev|>"))
            given += self._ids(f" {words.strip()}")[: _HALF - 1] if words else []
            given += self._ids(f" {before.strip()}")[-(_HALF - 1) :] if before else []
        return [*given, *self.start(language, task), self._no_times]

    def knows(self, language: str) -> bool:
        """Whether there is a token of a language."""
        return self._tokenizer.token_to_id(f"<|{language}|>") is not None

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens of what is not spoken, such as brackets and notes, and of prompts."""
        found = {self._ids(" -")[0], self._ids(" '")[0]}  # allowed within words, not before them
        for symbol in (*_SYMBOLS, *_NOTES):
            for ids in (self._ids(symbol), self._ids(f" {symbol}")):
                if len(ids) == 1 or symbol in _NOTES:
                    found.add(ids[0])
        special = ("transcribe", "translate", "startoftranscript", "startofprev", "startoflm", "nospeech", "nocaptions")
        known = (self._tokenizer.token_to_id(f"<|{name}|>") for name in special)
        return tuple(sorted(found | {each for each in known if each is not None}))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text: str = self._tokenizer.decode([token for token in tokens if token < self.end])
        return text

    def words(self, tokens: Sequence[int], language: str) -> list[tuple[str, int]]:
        """`(text, number of its tokens)` of each word, of tokens of text; punctuation is a word of its own.

        In languages without spaces a word is what the fewest tokens decode to.
        """
        pieces = list(self._pieces(tokens))
        if language in _WITHOUT_SPACES:
            return pieces
        words: list[tuple[str, int]] = []
        for text, count in pieces:
            if not words or text.startswith(" ") or text.strip() in string.punctuation:
                words.append((text, count))
            else:
                words[-1] = words[-1][0] + text, words[-1][1] + count
        return words

    def _pieces(self, tokens: Sequence[int]) -> Iterator[tuple[str, int]]:
        """The shortest runs of tokens that are whole characters."""
        held: list[int] = []
        whole, done = self.text(tokens), 0
        for token in tokens:
            held.append(token)
            text = self.text(held)
            place = text.find(_UNDECODED)
            # the text itself may have such a character
            if place < 0 or whole[done + place : done + place + 1] == _UNDECODED:
                yield text, len(held)
                done += len(text)
                held = []

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _id(self, name: str) -> int:
        found: int | None = self._tokenizer.token_to_id(name)
        if found is None:
            raise ModelError(f"the tokenizer has no token {name}: it is not that of Whisper", "add the model again")
        return found
