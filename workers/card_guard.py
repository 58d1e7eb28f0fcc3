"""Keeps a worker's card out of work while the fleet does not trust it, and checks it when a person asks for that."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pipelines.broker import Broker
from pipelines.cards import extend_doubt, readmit, refuse
from schemas.cards import CardState, Reason
from schemas.errors import Disposition, RigflowError, format_error
from workers.canaries import Canaries
from workers.obedience import Obedience
from workers.runner import Runner
from workers.telemetry import Event, log_event

LEAVE_S = 1.0


class CardGuard:
    """`open` before the worker takes any message, then `run` in a task. `reload` loads and tests all models anew."""

    def __init__(
        self,
        broker: Broker,
        runner: Runner,
        obedience: Obedience,
        canaries: Canaries,
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._broker, self._runner, self._obedience = broker, runner, obedience
        self._trust, self._canaries, self._reload = runner.trust, canaries, reload

    async def open(self) -> None:
        """Take no work from the start if the card is quarantined. Raises BrokerError."""
        await self._trust.recall(self._broker)
        if self._trust.quarantined:
            self._runner.intake.quarantined = True
            self._obedience.obey()

    async def run(self) -> None:
        """Carry out verdicts until cancelled."""
        tasks = [asyncio.create_task(each()) for each in (self._follow, self._canaries.run)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        if (record := self._trust.record) is not None and not record.works:  # a check that was asked for is a change
            self._trust.record = record.model_copy(update={"state": CardState.QUARANTINED})
        await self._trust.follow(self._broker, self._on_change)

    async def _on_change(self, state: CardState) -> None:
        intake = self._runner.intake
        intake.quarantined = state is not CardState.TRUSTED
        self._obedience.obey()
        async with self._canaries.lock:
            if state is CardState.QUARANTINED:
                await intake.io.hand_back()
                await self.do_again()
            elif state is CardState.CHECKING:
                await self._check()

    async def do_again(self) -> None:
        """Have other cards do again what this one did since its last good canary. Raises BrokerError."""
        record = self._trust.record
        if record is not None and record.doubts and self._trust.good_ms < record.doubts[-1].since_ms:
            # another worker on this card had a good canary since this one did
            await extend_doubt(self._broker, record.card, self._trust.good_ms)
        await self._runner.recent.do_again(self._runner.in_flight)

    async def leave(self) -> None:
        """The worker is about to end: if its card is quarantined, have others do again what is in hand and recent."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._trust.look(self._broker, self._on_change)
        except (RigflowError, TimeoutError):
            return
        except Exception as error:  # the worker ends all the same
            text = f"the verdict on card {self._trust.card} could not be read: {format_error(error)}"
            log_event(Event("unexpected", text, logging.ERROR))

    async def _check(self) -> None:
        """Trust the card again if it passes, or else say why not."""
        outcomes = self._trust.canaries
        try:
            await self._canaries.open()
            await self._reload()
            good, failed = outcomes["good"], outcomes["failed"]
            why = await self._canaries.round()
            if not why and outcomes["good"] == good and outcomes["failed"] > failed:
                why = "its check failed: no canary could be computed, see the log of its worker"
        except Exception as error:
            if isinstance(error, RigflowError) and error.disposition is Disposition.FATAL:
                raise
            why = f"its check failed: {format_error(error)}"
        if why:
            if not await refuse(self._broker, self._trust.card, why):  # another worker on this card found it good
                self._trust.accuse(Reason.CANARY, why)
        else:
            await self._canaries.passed()
            await readmit(self._broker, self._trust.card)
