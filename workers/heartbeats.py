"""Renews leases only while work moves: the messages of a stuck worker go to other workers after `ack_wait_s`."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from schemas.settings import Settings
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight


class Heartbeats:
    """Records when work last moved; `run` renews leases until it is cancelled.

    Work moves when a step begins or ends, and whenever it calls `tick`, so that a slow step does not count as stuck.
    `computing` returns whether a step runs. While none runs, nothing is stuck: messages wait for the broker or for a
    model that is loaded. `tick` may be called from any thread.
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
        self._awaited = False  # the next tick sets `_moved`; other ticks only read the clock

    @property
    def still_s(self) -> float:
        """Seconds since work last moved; 0 while no step runs."""
        return time.monotonic() - self._moved_s if self._computing() else 0.0

    def move(self) -> None:
        """Record that a step begins or ends."""
        self._moved_s = time.monotonic()
        self._moved.set()

    def tick(self) -> None:
        """Record that a step makes progress; called from inside it."""
        self._moved_s = time.monotonic()
        if self._awaited and self._loop is not None:
            self._awaited = False
            self._loop.call_soon_threadsafe(self._moved.set)

    async def run(self) -> None:
        """Renew the leases every third of `ack_wait_s`, and only when work moves.

        They are renewed right after work moved, so that they end `ack_wait_s` after the last move. When work does not
        move, the intake pauses first, so that the broker does not deliver the same messages to this worker again.
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
        """Renew those of split and collect, which may wait for a full queue without limit."""
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
