"""What a worker is to do now: by the orders of the fleet's operator, the hours of its rig, and verdicts on its card.

It takes no more work, hands back what it holds, or works again. Outside its hours it hands back what is not finished
and unloads its models, for what else the rig does then.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pipelines.broker import Broker
from pipelines.orders import Order, follow_orders
from schemas.hours import Hours
from workers.options import WorkerOptions
from workers.runner import Runner
from workers.telemetry import Event, log_event

POLL_S = 0.1
LOOK_S = 15.0  # between two looks at the clock, which may be set


class Obedience:
    """Carries out orders and hours for one worker: run `follow` in a task. `unload` frees the memory of its models."""

    def __init__(
        self,
        broker: Broker,
        runner: Runner,
        options: WorkerOptions,
        name: str,
        unload: Callable[[], Awaitable[None]],
        clock: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._broker, self._runner, self._options, self._name = broker, runner, options, name
        self._unload, self._clock = unload, clock
        self._hours = Hours.parse(options.settings.hours)
        self._order = Order.WORK
        self._handing_back: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Obey until cancelled."""
        tasks = [asyncio.create_task(each()) for each in (self._follow_orders, self._follow_hours)]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
        finally:
            for task in (*tasks, *filter(None, [self._handing_back])):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_orders(self) -> None:
        async for order in follow_orders(self._broker, self._name, self._options.rig):
            self._log(f"is ordered to {order.value}")
            self._order = order
            self.obey()

    async def _follow_hours(self) -> None:
        while self._hours.spans:
            now = self._clock()
            if self._hours.open_at(now) is self._runner.intake.off_hours:
                self._runner.intake.off_hours = not self._runner.intake.off_hours
                changes = "takes no work" if self._runner.intake.off_hours else "takes work"
                self._log(f"{changes} until {self._hours.changes_at(now) or 'further notice'}, by the setting hours")
                self.obey()
            elif self._runner.intake.off_hours and (self._handing_back is None or self._handing_back.done()):
                await self._unload()  # what was loaded since, as it is at a start and when a pipeline is published
            await asyncio.sleep(LOOK_S)

    def _log(self, what: str) -> None:
        log_event(Event("ordered", f"worker {self._name} {what}", logging.INFO, {"worker": self._name}))

    def obey(self) -> None:
        """Take work, or none, as things are now."""
        order, intake = self._order, self._runner.intake
        if self._handing_back is not None:
            self._handing_back.cancel()
        if order is Order.WORK and not intake.off_hours and not intake.quarantined:
            intake.uncordon()
            return
        intake.cordon()
        if order is Order.DRAIN or intake.off_hours:
            self._handing_back = asyncio.create_task(self._hand_back())

    async def _hand_back(self) -> None:
        """Hand back what is not finished within `stop_grace_s`: other workers get it at once."""
        in_flight = self._runner.in_flight
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.settings.stop_grace_s):
                while in_flight.messages or in_flight.io_messages:  # noqa: ASYNC110, they end in many places
                    await asyncio.sleep(POLL_S)
        if in_flight.messages or in_flight.io_messages:
            await self._runner.intake.io.hand_back()
            await in_flight.hand_back_all()
        if self._runner.intake.off_hours:
            await asyncio.shield(self._unload())  # half of it would leave models loaded that nobody knows any more
