"""The answers of a command: a line of text each, or with --json one list at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from cli.text import say, say_json

Answer: TypeAlias = Callable[..., None]  # of a text for people, and facts for programs by their names


@contextmanager
def answers(as_json: bool) -> Iterator[Answer]:
    """Yield a function that prints an answer; with `as_json` it keeps the facts, and the end prints them as a list.

    An answer with an empty text is for programs alone: people get a message.

    An error leaves the list of what was done before it; where that is nothing, nothing is printed.
    """
    kept: list[dict[str, Any]] = []

    def answer(text: object, /, keep: str = "", **facts: Any) -> None:
        if as_json:
            kept.append(facts)
        elif str(text):
            say(text, keep)

    try:
        yield answer
    except BaseException:
        if kept:
            say_json(kept)
        raise
    if as_json:
        say_json(kept)


@contextmanager
def spoken(as_json: bool) -> Iterator[tuple[Callable[[object], None], list[str]]]:
    """Yield a function that prints a line, or with `as_json` keeps it, and the lines that it kept."""
    lines: list[str] = []
    yield (lambda line: lines.append(str(line)) if as_json else say(line)), lines
