"""Puts the results of one job in order. Each piece is returned once, however often and when it arrives (law 2)."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.jobs import Key
from schemas.results import Failure, Result
from schemas.segments import Fragment

E = TypeVar("E")


@dataclass(slots=True)
class _Segment(Generic[E]):
    """What is known of one segment; `failed` are the parts that so far have a failure for a result."""

    tracks: E | None = None
    has_tracks: bool = False
    parts: dict[int, E] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    last: int | None = None
    failure: E | None = None


class JobOrder(Generic[E]):
    """Takes pieces in any order, each with an entry of the caller, and gives the entries back in order.

    The order is: the packets of a segment's tracks, then its parts. A failure has the place of the piece it replaces,
    until a result of that piece arrives, for example after a retry of its dead letter.

    `gathers`: behind the last segment of the media there is one more, which is made of all of them.
    """

    def __init__(self, gathers: bool = False) -> None:
        self._gathers = gathers
        self._segments: dict[int, _Segment[E]] = {}
        self._segment = 0
        self._part = 0
        self._final: int | None = None
        self._abort: E | None = None
        self._aborted = False

    @property
    def complete(self) -> bool:
        """Whether every piece of the job has been given out."""
        return self._aborted or (self._final is not None and self._segment > self._final + self._gathers)

    @property
    def gathered(self) -> int | None:
        """The segment that is to be made of the media, once all of the media was given out; None before and after."""
        final = self._final
        return self._segment if self._gathers and final is not None and self._segment == final + 1 else None

    @property
    def segments(self) -> int:
        """Segments that were given out completely."""
        return self._segment

    def offer(self, message: Result | Fragment | Failure, entry: E) -> bool:
        """Take a piece; False when it is a repeat, or its place was given out already."""
        key = message.meta.key if isinstance(message, Result) else message.key
        if key.segment < 0:
            return self._offer_abort(entry)
        if key.final:
            self._final = key.segment if self._final is None else min(self._final, key.segment)
        if self._aborted or key.segment < self._segment:
            return False
        segment = self._segments.setdefault(key.segment, _Segment())
        if isinstance(message, Fragment):
            new = not segment.has_tracks
            if new:
                segment.has_tracks, segment.tracks = True, entry
            return new
        if isinstance(message, Failure) and message.entire_segment:
            new = segment.failure is None
            segment.failure = entry if new else segment.failure
            return new
        return self._offer_part(segment, key, entry, failed=isinstance(message, Failure))

    def _offer_part(self, segment: _Segment[E], key: Key, entry: E, failed: bool) -> bool:
        given_out = key.segment == self._segment and key.part < self._part
        makes_good = key.part in segment.failed and not failed
        if given_out or (key.part in segment.parts and not makes_good):
            return False
        segment.parts[key.part] = entry
        if failed:
            segment.failed.add(key.part)
        else:
            segment.failed.discard(key.part)
        if key.last:
            segment.last = key.part
        return True

    def _offer_abort(self, entry: E) -> bool:
        """Take the failure of the entire job. No more results come unless its dead letter is retried."""
        if self.complete or self._abort is not None:
            return False
        self._abort = entry
        return True

    def take(self, failures: bool = True) -> E | None:
        """The next entry in order; None when it has not arrived.

        Without `failures` a failure counts as not arrived: use that while older results are read, because a result that
        replaces the failure may follow.
        """
        segment = self._segments.get(self._segment)
        if segment is not None and segment.tracks is not None and self._part == 0:
            entry, segment.tracks = segment.tracks, None
            return entry
        if segment is not None and self._part in segment.parts:
            return self._take_part(segment) if failures or self._part not in segment.failed else None
        if segment is not None and segment.failure is not None and failures:
            entry = segment.failure
            self._next_segment()
            return entry
        if self._abort is not None and failures and not self.complete:
            self._aborted = True
            return self._abort
        return None

    def _take_part(self, segment: _Segment[E]) -> E:
        entry = segment.parts.pop(self._part)
        if segment.last == self._part:
            self._next_segment()
        else:
            self._part += 1
        return entry

    def _next_segment(self) -> None:
        del self._segments[self._segment]
        self._segment += 1
        self._part = 0
