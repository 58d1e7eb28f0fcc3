"""An answer while it grows: its text, where it stops, and what is new in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.errors import RigflowError

Finish = Literal["", "stop", "length", "cancelled"]


@dataclass(slots=True, eq=False)
class Answer:
    """The text of one answer. A session adds tokens; `finish` is set when nothing follows, or `error`.

    `piece` makes text of the next token: "" until a character is complete. `stop`: texts at which the answer ends;
    they are no part of it. `cancel` ends it early.
    """

    piece: Callable[[int], str]
    stop: Sequence[str] = ()
    cancel: Callable[[], None] = lambda: None
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    finish: Finish = ""
    error: RigflowError | None = None
    first_s: float = 0.0
    _reported: int = 0
    _repeated: int = 0
    _held: int = field(init=False)

    def __post_init__(self) -> None:
        self._held = max(map(len, self.stop), default=1) - 1

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        return bool(self.finish) or self.error is not None

    def add(self, token: int) -> bool:
        """Add a token; return whether the text stops here."""
        if self._repeated:
            self._repeated -= 1
            return False
        self.tokens += 1
        begun = max(0, len(self.text) - self._held)
        self.text += self.piece(token)
        found = [place for each in self.stop if (place := self.text.find(each, begun)) >= 0]
        if found:
            self.text, self.finish = self.text[: min(found)], "stop"
        return bool(found)

    def repeat(self) -> None:
        """The session begins it again: the tokens that it has are added a second time, which has no effect."""
        self._repeated = self.tokens

    def end(self, finish: Finish) -> None:
        """Nothing follows."""
        if not self.done:
            self.finish = finish

    def fail(self, error: RigflowError) -> None:
        """It has no end."""
        if not self.done:
            self.error = error

    def advance(self) -> None:
        """Do nothing: no answer follows this one."""

    def news(self) -> str:
        """Return the text that is new since the last call, without what may be the beginning of a stop text."""
        sure = len(self.text) if self.done else max(self._reported, len(self.text) - self._held)
        new, self._reported = self.text[self._reported : sure], max(self._reported, sure)
        return new
