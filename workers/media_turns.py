"""Which raw media a worker splits at a time: interactive and bulk media of a pipeline do not wait for each other, small
ones do not wait for large ones, and of those that wait the shorter ones go first. While interactive media are split,
bulk ones pause for a little, because the event loop works on one of them at a time.
"""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engines.mapped import MAPPED_BYTES
from schemas.jobs import Priority
from workers.in_flight import InFlight

SMALL, LARGE = 8, 4  # media of a queue that are split at a time: in memory, and in files of `engines.mapped`
PAUSE_S = 0.2  # most that media of bulk pause at a time, so that they go on however many interactive ones there are
PASSED_BYTES_S = 10_000_000  # a media goes before one that came a second earlier and has so many bytes more


class MediaTurns:
    """Gives media their turns. A media that is not split yet keeps nothing but its message."""

    def __init__(self) -> None:
        self._free: defaultdict[object, int] = defaultdict(int)
        self._waiting: defaultdict[object, list[tuple[float, int, asyncio.Future[None]]]] = defaultdict(list)
        self._number = itertools.count()
        self._urgent = 0  # interactive media that are split now
        self._calm = asyncio.Event()

    @asynccontextmanager
    async def turn(self, message: InFlight) -> AsyncIterator[None]:
        """Hold one of the places for media of this queue and size."""
        large = message.nbytes > MAPPED_BYTES
        place = message.queue, large
        if place not in self._free:
            self._free[place] = LARGE if large else SMALL
        await self._take(place, message.nbytes)
        urgent = message.queue.priority is Priority.INTERACTIVE
        self._urgent += urgent
        try:
            await self.let_pass(message)
            yield
        finally:
            self._urgent -= urgent
            if not self._urgent:
                self._calm.set()
            self._give_back(place)

    async def let_pass(self, message: InFlight) -> None:
        """Of bulk, wait while interactive media are split, at most `PAUSE_S`."""
        if self._urgent and message.queue.priority is not Priority.INTERACTIVE:
            self._calm.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self._calm.wait()

    async def _take(self, place: object, nbytes: int) -> None:
        if self._free[place]:
            self._free[place] -= 1
            return
        ready = asyncio.get_running_loop().create_future()
        self._waiting[place].append((time.monotonic() + nbytes / PASSED_BYTES_S, next(self._number), ready))
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():  # it was given its place already
                self._give_back(place)
            raise

    def _give_back(self, place: object) -> None:
        waiting = self._waiting[place]
        waiting[:] = [each for each in waiting if not each[2].done()]
        if waiting:
            first = min(waiting)
            waiting.remove(first)
            first[2].set_result(None)
        else:
            self._free[place] += 1
