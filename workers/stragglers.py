"""Messages that this worker has for too long, while a faster one is free: they are done again there.

One that has not begun is handed back. Of one that has begun a copy goes into its queue, once. The first result of each
part counts, because ids of results follow from the place in the job. A copy that fails is dropped. None is made of what
may have crashed a worker.
"""

import asyncio
import logging
import time

from pipelines.broker import Broker
from placement.tail import WORTH_S, repeats
from schemas.errors import RigflowError
from schemas.subjects import HEADER_BLOB, HEADER_COPY
from workers.handoff import Handoff
from workers.in_flight import InFlight, State
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight
from workers.peers import Peers
from workers.telemetry import Event, log_event

LOOK_S = 1.0
REFRESH_S = 3.0
STORE_S = 2.0  # most seconds to wait for room in the queue


class Stragglers:
    """Looks for them every second, where a message takes this worker a second or more."""

    def __init__(
        self, broker: Broker, name: str, in_flight: MessagesInFlight, intake: Intake, handoff: Handoff
    ) -> None:
        self._broker = broker
        self._peers = Peers(broker, name)
        self._in_flight = in_flight
        self._intake = intake
        self._handoff = handoff

    async def run(self) -> None:
        """Look until cancelled. A worker whose messages take less than a second reads no statuses."""
        while True:
            await asyncio.sleep(LOOK_S)
            oldest_s = max((time.monotonic() - message.taken_s for message in self._in_flight.messages), default=0.0)
            if max(oldest_s, self._in_flight.throughput.slowest_s) < WORTH_S or not self._in_flight.messages:
                continue
            if time.monotonic() - self._peers.seen_s >= REFRESH_S:
                await self._peers.refresh()
                self._intake.tail.update(self._peers.known, self._peers.seen_s)
            if self._in_flight.continuing.busy:  # answers that grow are sent as they grow: one worker writes each
                continue
            for message in sorted(self._in_flight.messages, key=lambda each: each.taken_s):
                await self._look_at(message)

    async def _look_at(self, message: InFlight) -> None:
        key = message.queue.pipeline, message.queue.stage
        free = [peer.message_s[key] for peer in self._peers.known if peer.free and key in peer.message_s]
        age_s = time.monotonic() - message.taken_s
        excluded = message.is_copy or message.poison_candidate or HEADER_BLOB in message.delivery.headers
        if not free or message.ended or excluded:
            return
        if not repeats(age_s, min(free), int(message.copied), min(free)):
            return
        if await self._handoff.idle_at(message.queue) <= 0:
            return
        if message.state is State.TAKEN:
            self._intake.tail.leave(message.queue)
            await message.hand_back()
        elif message.state is State.BEGUN and not message.useless:
            await self._copy(message, age_s, min(free))

    async def _copy(self, message: InFlight, age_s: float, predicted_s: float) -> None:
        """Put a copy into the queue that it came from."""
        message.copied = True
        self._intake.tail.leave(message.queue)
        try:
            async with asyncio.timeout(STORE_S):
                await message.delivery.publish_again("copy", {HEADER_COPY: "1"})
        except (RigflowError, TimeoutError):
            return  # the queue is full: then no worker is idle
        job = message.job.id if message.job is not None else ""
        text = (
            f"a message of {message.queue.pipeline} {message.queue.stage} has been here for {age_s:.1f} s, and a free"
        )
        text += f" worker takes {predicted_s:.1f} s for one: it is done there, too"
        log_event(Event("copied", text, logging.INFO, {"job": job, "age_s": age_s, "predicted_s": predicted_s}))
