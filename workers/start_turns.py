"""Starts workers one after another: many GPUs that begin at one moment draw more than a power supply gives."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StartTurns:
    """Turns to start a worker, `pause_s` seconds after the start before; without a pause all start at once."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._turn = asyncio.Lock()
        self._next_s = 0.0  # of the monotonic clock

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Inside of the block one worker is started."""
        if not self._pause_s:
            yield
            return
        async with self._turn:
            await asyncio.sleep(self._next_s - time.monotonic())
            try:
                yield
            finally:
                self._next_s = time.monotonic() + self._pause_s
