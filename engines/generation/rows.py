"""Answers in rows of a table of keys and values, and what such a table does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.generation.answer_request import Tokens
from engines.generation.answering import Asked
from engines.part import Array


class Scores(Protocol):
    """Scores of the next token of each row of a run."""

    def best(self) -> Sequence[int]:
        """The token with the highest score of each row."""
        ...

    def of(self, rows: Sequence[int]) -> Array:
        """Scores of some rows: `[rows, vocabulary] float32`."""
        ...


class Table(Protocol):
    """Keys and values of texts, a row each. All methods raise RigflowError."""

    @property
    def piece(self) -> int:
        """Most tokens of a text that a run reads."""
        ...

    @property
    def together(self) -> int:
        """Most rows that get a token in a run; the first one is a multiple of it, or there is one run for all."""
        ...

    @property
    def steps_all(self) -> bool:
        """Whether a token for all texts takes no longer than one for a few."""
        ...

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether a run can read texts of these lengths, the first of which it reads in any case."""
        ...

    def read(self, first: int, texts: Sequence[Tokens], before: int = 0) -> Scores:
        """Read texts into the rows from `first` on; `before`: a single one goes on where its row has so many tokens."""
        ...

    def write(self, first: int, tokens: Sequence[int], known: Sequence[int]) -> Scores:
        """Add a token to each of the rows from `first` on, which have so many."""
        ...

    def stop(self) -> None:
        """Called by any thread: the run that goes on may end at once, with Stopped."""
        ...

    def move(self, source: int, target: int, known: int) -> None:
        """Copy a row of so many tokens over another one."""
        ...


@dataclass(slots=True, eq=False)
class Row:
    """An answer in a row of the table, which has `known` tokens; `token` is the last one and not among them."""

    asked: Asked
    known: int = 0
    token: int = 0
    drawn: int = 0  # tokens that were chosen

    @property
    def reads(self) -> bool:
        """Whether its question is not read to the end."""
        return self.known < len(self.asked.request.tokens)

    @property
    def urgent(self) -> bool:
        """Whether a person waits for it."""
        return self.asked.request.urgent
