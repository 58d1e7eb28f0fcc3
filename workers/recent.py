"""What a card has done since its last good canary, so that other cards can do it again: the inputs, at most 32 MiB.

Inputs of which there is no room are left out, oldest first, and counted: what was made of them is not done again.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from pipelines.broker import Broker
from pipelines.cards import doubt_text
from pipelines.delivery import Delivery
from pipelines.job_records import JobRecord
from schemas.errors import RigflowError, format_error
from schemas.jobs import JobRef
from schemas.subjects import COLLECT, HEADER_AGAIN, SPLIT
from workers.in_flight import InFlight, State
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Event, log_event
from workers.trust import Trust

MOST_BYTES = 32 << 20
MESSAGE_BYTES = 2 << 10  # of a message beside its body


@dataclass(frozen=True, slots=True)
class _Done:
    """An input that was finished after so many canaries had begun."""

    delivery: Delivery
    job: JobRef
    canaries: int


class Recent:
    """`add` each message that ended; `begin` with each canary, `good` after a good one. `full`: the next one is due."""

    def __init__(self, broker: Broker, trust: Trust) -> None:
        self._broker, self._trust = broker, trust
        self._done: deque[_Done] = deque()
        self._nbytes = self._canaries = 0
        self._keeps = broker.settings.canary_minutes > 0
        self.full = asyncio.Event()
        self.left_out = 0

    def add(self, message: InFlight) -> None:
        """Keep the input of a message that was finished on the card."""
        if not self._keeps or message.job is None or message.state is not State.ACKED:
            return
        if message.queue.stage in (SPLIT, COLLECT):  # the host alone works on these
            return
        self._done.append(_Done(message.delivery, message.job, self._canaries))
        self._nbytes += message.delivery.nbytes
        if self._held > MOST_BYTES // 2:
            self.full.set()
        while self._held > MOST_BYTES:
            self._nbytes -= self._done.popleft().delivery.nbytes
            self.left_out += 1

    @property
    def _held(self) -> int:
        """The bytes in memory of what is here."""
        return self._nbytes + MESSAGE_BYTES * len(self._done)

    def begin(self) -> None:
        """A canary begins."""
        self._canaries += 1

    def good(self) -> None:
        """The canary that began last was good: what was finished before it need not be done again."""
        while self._done and self._done[0].canaries < self._canaries:
            self._nbytes -= self._done.popleft().delivery.nbytes
        self.left_out = 0

    async def do_again(self, in_flight: MessagesInFlight) -> None:
        """Send what is here, and the messages in hand that have begun, to their queues once more.

        The parts of jobs that are over cannot be replaced: that goes into their records. Raises BrokerError.
        """
        again = 0
        for message in list(in_flight.messages):
            if message.state is State.BEGUN and not message.useless:
                again += 1
                await self._send(message.delivery)
                await message.replace()
            elif not message.ended:
                await message.hand_back()
        ended: dict[JobRef, bool] = {}
        while self._done:  # those among them that ended meanwhile
            done = self._done.popleft()  # meanwhile others may be added, and left out
            try:
                if done.job not in ended:
                    ended[done.job] = await self._note_ended(done.job)
                if not ended[done.job]:
                    again += 1
                    await self._send(done.delivery)
            except BaseException:
                self._done.appendleft(done)
                raise
            self._nbytes -= done.delivery.nbytes
        late = f"; {self.left_out} more are not here any more" if self.left_out else ""
        text = f"{again} messages of card {self._trust.card} are done again elsewhere{late}"
        log_event(Event("done-again", text, logging.WARNING, {"card": self._trust.card, "messages": again}))
        self.left_out = 0

    async def _send(self, delivery: Delivery) -> None:
        """Put an input into its queue once more. What is made of it has ids of its own."""
        again = f"{self._trust.card}.{self._trust.good_ms}"
        await delivery.publish_again(again, {HEADER_AGAIN: again})

    async def _note_ended(self, job: JobRef) -> bool:
        """Whether a job is over; then its record says that parts of it are in doubt."""
        record = await JobRecord.read(self._broker, job)
        if record is None or record.manifest.job != job:
            return record is not None  # it was begun anew, or its publisher has not written it yet
        if not record.manifest.state.ended:
            return False
        try:
            await record.change(doubt=doubt_text([self._trust.card]))
        except RigflowError as error:  # it was cancelled
            log_event(Event("unpublished", f"job {job.id}: {format_error(error)}"))
        text = f"job {job.id} is over, and has parts of card {self._trust.card}, which was found to answer wrongly"
        log_event(Event("job-in-doubt", text, logging.ERROR, {"job": job.id, "card": self._trust.card}))
        return True
