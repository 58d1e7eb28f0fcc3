"""Marks the last of several things as they come."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def marked_last(things: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield each of `things`, and whether it is the last. The next one is taken before each is given."""
    rest = iter(things)
    for waiting in rest:
        for thing in rest:
            yield waiting, False
            waiting = thing
        yield waiting, True
