"""Protocols of work that goes on: parts join it and leave it at any time, as the answers of language models do.

Of engines, it imports only values that are passed, so that every folder can import it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engines.part import Part, Tick
from engines.ports import Session
from schemas.errors import RigflowError


@dataclass(frozen=True, slots=True)
class NewText:
    """New text of an answer: that of row `row` of the part, of an item called `name`. `number` counts the new texts of
    an answer from 0.
    """

    row: int
    name: str
    number: int
    text: str


class Stopped(Exception):
    """A step ended before its end, as `Stepping.hurry` asked. It is done again."""


class Running(Protocol):
    """A part that an operator works on beside others, from `Continuous.begin` until it is done."""

    @property
    def done(self) -> bool:
        """Whether work on it has ended, so that `outcome` may be called."""
        ...

    @property
    def answers(self) -> Sequence["Timed"]:
        """The answers to its rows that a model writes."""
        ...

    def advance(self) -> None:
        """Begin what follows from answers that have ended. Called after each step, by the thread that does it."""
        ...

    def news(self) -> Iterator[NewText]:
        """Yield the text that is new since the last call."""
        ...

    def outcome(self) -> Part | RigflowError:
        """Return the part with the arrays that the operator makes, or its error."""
        ...

    def cancel(self) -> None:
        """Stop work on it."""
        ...


class Timed(Protocol):
    """An answer: how many tokens it has, and when its first token came (0: not yet)."""

    tokens: int
    first_s: float


@runtime_checkable
class Stepping(Protocol):
    """A session that works on several parts at a time, a step for all of them after the other."""

    @property
    def places(self) -> int:
        """How many answers it can work on at a time."""
        ...

    @property
    def room(self) -> int:
        """How many more answers can be begun without waiting for others to end."""
        ...

    @property
    def busy(self) -> bool:
        """Whether there is work to step."""
        ...

    def step(self, tick: Tick) -> None:
        """Do the next step of all work. An error is that of a part."""
        ...

    def hurry(self) -> None:
        """A person's part comes: a step for bulk alone may end at once and be done again. Called by any thread."""
        ...


@runtime_checkable
class Continuous(Protocol):
    """An operator that works on parts as they come, by a session that steps: the next part waits for no other to end.

    The answer for a part still depends on that part alone.
    """

    def begin(self, part: Part, session: Session, urgent: bool) -> Running:
        """Begin work on a part; `urgent`: a person waits for it. Raises RigflowError."""
        ...
