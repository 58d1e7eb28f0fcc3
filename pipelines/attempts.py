"""Attempts that did not finish a message. They make a dead letter of a message that crashes every worker that has it.

The server counts deliveries, and those include messages that were handed back untouched and messages that only waited
in a worker that another message crashed. So each worker process stores what it has begun under one key, which the next
write of the same process replaces. What a crashed process stored stays, and the next worker with the message reads it.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from contextlib import suppress

from pydantic import RootModel

from pipelines.broker import Broker
from pipelines.connection import Away
from pipelines.pull import Delivery
from pipelines.values import decoded
from schemas.messages import Attempt

Place = tuple[str, int]  # stream, sequence: which message
Begun = RootModel[list[tuple[str, int, Attempt]]]  # what a process had begun, each with its place


class Attempts:
    """What one worker process has begun, and what became of earlier attempts at what it is given."""

    def __init__(self, broker: Broker, worker: str, host: str, device: str) -> None:
        self._broker = broker
        self._life = broker.connection.unique()
        self._origin = {"worker": worker, "host": host, "device": device}

    async def of(self, delivery: Delivery) -> tuple[Attempt, ...]:
        """Earlier attempts at a message, in order. An asker pays for it only when it was delivered before."""
        if delivery.deliveries == 1:
            return ()
        place = _place(delivery)
        words, failed = await asyncio.gather(
            self._broker.items(self._broker.names.attempts, "begun.*"),
            self._broker.items(self._broker.names.attempts, f"failed.{place[0]}.{place[1]}.*"),
        )
        begun = (decoded(Begun, body, f"attempts {key}") for key, body in words.items())
        ended = (decoded(Attempt, body, f"attempt {key}") for key, body in failed.items())
        known = {at.number: at for each in begun if each for *where, at in each.root if tuple(where) == place}
        known |= {attempt.number: attempt for attempt in ended if attempt}
        known.pop(delivery.deliveries, None)  # this one
        return tuple(known[number] for number in sorted(known))

    def new(self, delivery: Delivery) -> Attempt:
        """This worker's attempt at a message, from now on."""
        return Attempt(number=delivery.deliveries, at_s=time.time(), **self._origin)

    async def store_begun(self, begun: Iterable[tuple[Delivery, Attempt]], surely: bool) -> None:
        """Store which messages this process has begun and not finished; replaces what it stored before.

        It is not awaited to be stored, for that would cost each message a round trip: if this write is lost, the
        attempt is not counted as a crash. It does not even wait until the kernel has it, which takes microseconds in
        which no engine crashes, unless `surely`: a message that crashed a worker before must be counted this time.
        """
        rows = [[*_place(delivery), attempt.model_dump()] for delivery, attempt in begun]
        subject, body = f"$KV.{self._broker.names.attempts}.begun.{self._life}", json.dumps(rows).encode()
        with suppress(Away):
            await (self._broker.connection.send_now if surely else self._broker.connection.send)(subject, body)

    async def store_failed(self, delivery: Delivery, attempt: Attempt) -> None:
        """Store an attempt that ended with an error, before the message is delivered again."""
        stream, sequence = _place(delivery)
        key = f"failed.{stream}.{sequence}.{attempt.number}"
        await self._broker.put(self._broker.names.attempts, key, attempt.model_dump_json().encode())


def _place(delivery: Delivery) -> Place:
    return delivery.stream, delivery.stream_seq
