"""Parts that a device decodes before they are asked for."""

from collections.abc import Callable, Iterator
from typing import Protocol, cast, runtime_checkable

from engines.part import Part
from engines.protocols import conforms


@runtime_checkable
class PrefetchedParts(Protocol):
    """Parts of a segment that are decoded before they are asked for."""

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer at once."""
        ...

    @property
    def pending(self) -> bool:
        """Whether `on_ready` will be called, after which `next` has an answer at once."""
        ...

    def begin(self, on_ready: Callable[[], None] | None = None) -> None:
        """Begin to decode; otherwise the first `next` does.

        `on_ready` is called, on any thread, for each part that is decoded, and at the end.
        """
        ...


def prefetched(parts: Iterator[Part] | None) -> PrefetchedParts | None:
    """Return parts as those that are decoded before they are asked for; None if they are not, as all of their class."""
    return cast(PrefetchedParts, parts) if conforms(parts, PrefetchedParts) else None
