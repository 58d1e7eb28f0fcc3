"""Leases are renewed while work moves, and only then: what a stuck engine holds is done by others within a lease."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from schemas.settings import Settings
from workers.intake import Hand, Intake


class Heartbeats:
    """Knows when work in hand moved last; `run` renews its leases until it is cancelled.

    `rests` says whether there is nothing to compute: no work in hand, or all it waits for is the broker.
    """

    def __init__(self, settings: Settings, hand: Hand, intake: Intake, rests: Callable[[], bool]) -> None:
        self._settings = settings
        self._hand = hand
        self._intake = intake
        self._rests = rests
        self._moved = asyncio.Event()
        self._moved_s = time.monotonic()

    @property
    def still_s(self) -> float:
        """Seconds since work in hand last moved; 0 while there is nothing to compute."""
        return 0.0 if self._rests() else time.monotonic() - self._moved_s

    def begin(self) -> None:
        """There is work in hand again."""
        self._moved_s = time.monotonic()

    def move(self) -> None:
        """A step ended, or what it gave is stored."""
        self._moved_s = time.monotonic()
        self._moved.set()

    async def run(self) -> None:
        """Renew the leases every third of ack_wait, and only when work moves: a stuck engine lets them lapse.

        They are renewed right after a step, so that they end ack_wait after the last one. By then a stuck worker has
        withdrawn what it asked for: what lapses must not come back to it.
        """
        third_s = self._settings.ack_wait_s / 3
        while True:
            await asyncio.sleep(third_s)
            if not await self._moves(third_s):
                self._intake.pause()
                while not await self._moves(third_s):
                    pass
                self._intake.resume()
            now = time.monotonic()
            for lease in list(self._hand.leases):
                due = self._rests() or now - lease.taken_s < self._settings.work_deadline_s
                if due and not lease.settled:
                    await lease.delivery.progress()

    async def _moves(self, within_s: float) -> bool:
        """Wait for the end of a step or for a PubAck; true at once when there is nothing to compute."""
        self._moved.clear()
        if self._rests():
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        return self._moved.is_set()
