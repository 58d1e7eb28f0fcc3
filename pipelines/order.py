"""One job's results, put in order: every piece once, however often and in whatever order it arrives (law 2)."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.messages import Failure, Fragment, Key, Result

E = TypeVar("E")


@dataclass(slots=True)
class _Segment(Generic[E]):
    """What is known of one segment."""

    sound: E | None = None
    has_sound: bool = False
    parts: dict[int, E] = field(default_factory=dict)
    last: int | None = None
    failure: E | None = None


class JobOrder(Generic[E]):
    """Takes pieces in any order with whatever entry the caller keeps for them, gives the entries back in order.

    The order is: a segment's sound, then its parts. A failure stands where the piece it replaces would stand.
    """

    def __init__(self) -> None:
        self._segments: dict[int, _Segment[E]] = {}
        self._segment = 0
        self._part = 0
        self._final: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every piece of the job has been given out."""
        return self._final is not None and self._segment > self._final

    @property
    def segments(self) -> int:
        """Segments given out whole."""
        return self._segment

    def offer(self, message: Result | Fragment | Failure, entry: E) -> bool:
        """Take a piece; False when it is a repeat, or comes after its place was given out."""
        key = message.meta.key if isinstance(message, Result) else message.key
        if key.segment < 0:
            return self._abort(entry)
        if key.final:
            self._final = key.segment
        if key.segment < self._segment:
            return False
        segment = self._segments.setdefault(key.segment, _Segment())
        if isinstance(message, Fragment):
            new = not segment.has_sound
            if new:
                segment.has_sound, segment.sound = True, entry
            return new
        if isinstance(message, Failure) and message.whole:
            new = segment.failure is None
            segment.failure = entry if new else segment.failure
            return new
        return self._offer_part(segment, key, entry)

    def _offer_part(self, segment: _Segment[E], key: Key, entry: E) -> bool:
        given_out = key.segment == self._segment and key.part < self._part
        if given_out or key.part in segment.parts:
            return False
        segment.parts[key.part] = entry
        if key.last:
            segment.last = key.part
        return True

    def _abort(self, entry: E) -> bool:
        """The whole job failed: nothing else will come."""
        if self.complete:
            return False
        self._segments = {self._segment: _Segment(failure=entry)}
        self._final = self._segment
        return True

    def take(self) -> E | None:
        """The next entry in order; None when it has not arrived."""
        segment = self._segments.get(self._segment)
        if segment is None:
            return None
        if segment.sound is not None and self._part == 0:
            entry, segment.sound = segment.sound, None
            return entry
        if self._part in segment.parts:
            entry = segment.parts.pop(self._part)
            if segment.last == self._part:
                self._next_segment()
            else:
                self._part += 1
            return entry
        if segment.failure is not None:
            entry = segment.failure
            self._next_segment()
            return entry
        return None

    def _next_segment(self) -> None:
        del self._segments[self._segment]
        self._segment += 1
        self._part = 0
