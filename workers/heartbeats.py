"""Renews leases while work moves, and only then: what a stuck engine holds goes to other workers after one lease."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from schemas.settings import Settings
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight


class Heartbeats:
    """Records when work in hand moved last; `run` renews its leases until it is cancelled.

    A step moves when it ends and whenever it calls `tick` from inside, so that a slow step is not a stuck one.
    `computing` returns whether a step runs: without one, nothing can be stuck, for all that is in hand waits for the
    broker or for a model that is loaded. `tick` may be called from any thread.
    """

    def __init__(
        self, settings: Settings, in_flight: MessagesInFlight, intake: Intake, computing: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._intake = intake
        self._computing = computing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._moved = asyncio.Event()
        self._moved_s = time.monotonic()
        self._awaited = False  # the next tick sets `_moved`; others cost a clock reading each

    @property
    def still_s(self) -> float:
        """Seconds since work in hand last moved; 0 while no step runs."""
        return time.monotonic() - self._moved_s if self._computing() else 0.0

    def move(self) -> None:
        """A step begins or ends."""
        self._moved_s = time.monotonic()
        self._moved.set()

    def tick(self) -> None:
        """A step goes on."""
        self._moved_s = time.monotonic()
        if self._awaited and self._loop is not None:
            self._awaited = False
            self._loop.call_soon_threadsafe(self._moved.set)

    async def run(self) -> None:
        """Renew the leases every third of ack_wait, and only when work moves: a stuck engine lets them lapse.

        They are renewed right after work moved, so that they end ack_wait after the last move. Before that the intake
        of a stuck worker pauses, so that the broker does not deliver the same messages to it again.
        """
        self._loop = asyncio.get_running_loop()
        third_s = self._settings.ack_wait_s / 3
        while True:
            await asyncio.sleep(third_s)
            await self._renew_io()
            if not await self._moves(third_s):
                self._intake.pause()
                while not await self._moves(third_s):
                    await self._renew_io()
                self._intake.resume()
            await self._renew()

    async def _renew(self) -> None:
        now_s = time.monotonic()
        for message in list(self._in_flight.messages):
            late = self._computing() and now_s - message.taken_s >= self._settings.work_deadline_s
            if not message.ended and not late:
                await message.delivery.progress()

    async def _renew_io(self) -> None:
        """Renew those of split and collect: a full queue may hold them back for as long as it takes."""
        for message in list(self._in_flight.io_messages):
            if not message.ended:
                await message.delivery.progress()

    async def _moves(self, within_s: float) -> bool:
        """Wait until work moves; true at once while no step runs."""
        self._moved.clear()
        if not self._computing():
            return True
        self._awaited = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        return self._moved.is_set()
