"""Whether the fleet trusts a worker's card, and the mark that parts have of it.

The record is read every two seconds, so that no verdict is missed: workers may not follow this bucket in fleets whose
roles are of an earlier version.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from engines.machine import driver_version
from engines.part import Part
from pipelines.broker import Broker
from pipelines.cards import canaries, card_record, quarantine
from schemas.cards import CardRecord, CardState, Reason, card_name, mark_of
from schemas.errors import RigflowError
from schemas.settings import Settings
from workers.telemetry import Event, log_event

LOOK_S = 2.0
Clock = Callable[[], int]


def _own_clock() -> int:
    return int(time.time() * 1000)


class Trust:
    """A card and the time of its last good canary, in milliseconds since 1970; before the first one, of the start.

    From the beginning of a canary on, the mark has that time, also if it fails; `good_ms` only if it is good.
    """

    def __init__(self, uuid: str, worker: str, clock: Clock = _own_clock, rig: str = "", kind: str = "") -> None:
        """`clock` is that of the broker in milliseconds since 1970, which all machines share."""
        self.card, self._clock, self._rig, self.kind = card_name(uuid, worker), clock, rig, kind
        self.good_ms = self._mark_ms = clock()
        self.record: CardRecord | None = None
        self.canaries = {"good": 0, "wrong": 0, "failed": 0}  # by outcome
        self._accused: list[tuple[Reason, str, str]] = []
        self._looking = asyncio.Lock()
        self._news = asyncio.Event()

    @property
    def quarantined(self) -> bool:
        """Whether it takes no work."""
        return self.record is not None and not self.record.works

    @property
    def mark(self) -> str:
        """The mark of what it computes now."""
        return mark_of(self.card, self._mark_ms)

    def signed(self, part: Part) -> Part:
        """A part with the mark of this card."""
        cards = self.cards(part)
        return part if cards is part.meta.cards else part.with_arrays(part.arrays, cards=cards)

    def cards(self, part: Part) -> tuple[str, ...]:
        """The marks of a part with that of this card."""
        cards = part.meta.cards
        return cards if self.mark in cards else (*cards, self.mark)

    def begin(self) -> int:
        """A canary begins; its time."""
        self._mark_ms = self._clock()
        return self._mark_ms

    def good(self, since_ms: int) -> None:
        """The canary that began then was good."""
        self.good_ms = since_ms

    def accuse(self, reason: Reason, why: str, revision: str = "") -> None:
        """Have the card quarantined: this worker found that it errs. Called by the event loop's thread.

        With a `revision` of a pipeline only if another card of its kind computes that: else the engine may be at fault.
        """
        self._accused.append((reason, why, revision))
        self._news.set()

    async def recall(self, broker: Broker) -> None:
        """Read the record, and the last good canary of an earlier process on this card. Raises BrokerError."""
        self.record = await card_record(broker, self.card)
        if known := [each.good_ms for each in await canaries(broker, self.card) if each.good_ms]:
            known += [each.until_ms for each in self.record.doubts] if self.record and self.record.works else []
            self.good_ms = self._mark_ms = min(max(known), self._clock())  # earlier versions took their own clocks

    async def follow(self, broker: Broker, on_change: Callable[[CardState], Awaitable[None]]) -> None:
        """Call `on_change` for each state that the card comes to, until cancelled."""
        while True:
            with suppress(RigflowError):  # the broker is away: no work comes either
                await self.look(broker, on_change)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            self._news.clear()

    async def look(self, broker: Broker, on_change: Callable[[CardState], Awaitable[None]]) -> None:
        """Store accusations, and read the record; a quarantine between two looks is obeyed too. Raises BrokerError."""
        async with self._looking:
            while self._accused:
                reason, why, revision = self._accused[0]
                if not revision or await self._works_elsewhere(broker, revision):
                    await quarantine(broker, self.card, reason, why, self.good_ms, self._rig)
                del self._accused[0]
            await self._read(broker, on_change)

    async def _read(self, broker: Broker, on_change: Callable[[CardState], Awaitable[None]]) -> None:
        known = self.record
        before = CardState.TRUSTED if known is None else known.state
        self.record = await card_record(broker, self.card)
        after = CardState.TRUSTED if self.record is None else self.record.state
        missed = self.record is not None and self.record.doubted_since(known)
        if not missed and after is before and (after is not CardState.CHECKING or known == self.record):
            return
        if self.record is not None and after is CardState.QUARANTINED:
            text = f"card {self.card} is quarantined, {self.record.why}; see `rigflow cards`"
            log_event(Event("card-quarantined", text, logging.ERROR, {"card": self.card}))
        elif after is CardState.TRUSTED:
            log_event(Event("card-readmitted", f"card {self.card} takes work again", logging.INFO, {"card": self.card}))
        try:
            if missed and after is not CardState.QUARANTINED:
                await on_change(CardState.QUARANTINED)
            if after is CardState.TRUSTED:
                self.good_ms = self.begin()
            await on_change(after)
        except BaseException:
            self.record = known  # the next look tries again
            raise

    async def _works_elsewhere(self, broker: Broker, revision: str) -> bool:
        """Whether another card of this kind, on a rig that is set up alike, answered the canary of a revision."""
        others = [each for each in await canaries(broker) if each.card != self.card and each.last]
        alike = self.kind, revision, setup_of(broker.settings)
        return any((each.kind, each.revision, each.setup) == alike for each in others)


def setup_of(settings: Settings) -> str:
    """What an engine depends on beside the kind of its device: one that fails may be at fault, and not its card."""
    return f"{settings.backend} {settings.precision} {settings.tf32} {driver_version()}"
