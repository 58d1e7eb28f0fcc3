"""Sends the segments of a job, a few at a time and in order, and counts what the broker has stored."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from schemas.jobs import Key, Manifest


@dataclass(frozen=True, slots=True)
class Cut:
    """One segment to send. Once it is stored, `sent_s` of `duration_s` seconds of the media are at the broker."""

    send: Callable[[Key], Coroutine[Any, Any, None]]
    final: bool
    sent_s: float
    duration_s: float


class Sending:
    """A few publishes in flight, in order of submission; the next call raises the first failure.

    Counts what is at the broker: `segments`, the first `sent_s` of `duration_s` seconds. `begun`: whether anything was
    sent.
    """

    def __init__(self, limit: int, known: Manifest) -> None:
        self._limit = limit
        self._in_flight: list[tuple[Cut, asyncio.Task[None]]] = []
        self.begun = known.segments > 0
        self.segments = known.segments
        self.sent_s = known.sent_s
        self.duration_s = known.duration_s

    @property
    def progress(self) -> dict[str, Any]:
        """The same as fields of the manifest."""
        return {"segments": self.segments, "sent_s": self.sent_s, "duration_s": self.duration_s}

    async def submit(self, cut: Cut, key: Key) -> None:
        """Send a cut as the segment of this key, once fewer than the limit are in flight."""
        self.duration_s = cut.duration_s
        self.begun = True
        self._in_flight.append((cut, asyncio.create_task(cut.send(key))))
        while len(self._in_flight) >= self._limit:
            await self._finish_first()

    async def _finish_first(self) -> None:
        cut, sending = self._in_flight[0]
        await sending
        del self._in_flight[0]
        self.segments += 1
        self.sent_s = cut.sent_s

    async def __aenter__(self) -> "Sending":
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            while self._in_flight and kind is None:
                await self._finish_first()
        finally:
            left = [sending for _, sending in self._in_flight]
            for sending in left:
                sending.cancel()
            await asyncio.gather(*left, return_exceptions=True)
