"""Attempts that did not end well: who began what, and never finished it. They make a dead letter of what kills workers.

The server counts deliveries, and those include what was handed back untouched and what only waited in a worker that
another item killed. So workers say what they begin with: one message each, which the next one of the same process
replaces. A process that is killed leaves its last words behind, and whoever is given its work next reads them.
"""

import asyncio
import json
import time
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
    """What one worker process is at, and what became of earlier attempts at what it is given."""

    def __init__(self, broker: Broker, worker: str, host: str, device: str) -> None:
        self._broker = broker
        self._life = broker.connection.unique()
        self._who = {"worker": worker, "host": host, "device": device}
        self._begun: dict[Place, Attempt] = {}
        self._suspect: Place | None = None

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

    async def begin(self, delivery: Delivery, suspect: bool = False) -> None:
        """Say that work on a message begins. A `suspect` is computed alone, so it alone is to blame meanwhile."""
        self._begun[_place(delivery)] = self._attempt(delivery)
        if suspect:
            self._suspect = _place(delivery)
        await self._say(surely=delivery.deliveries > 1)

    def end(self, delivery: Delivery) -> None:
        """A message is settled; what we said of it is replaced when the next begins."""
        self._begun.pop(_place(delivery), None)
        if self._suspect == _place(delivery):
            self._suspect = None

    async def failed(self, delivery: Delivery, error: str) -> Attempt:
        """Note that our attempt ended with an error, before the message is handed on."""
        attempt = self.ended(delivery, error)
        stream, sequence = _place(delivery)
        key = f"failed.{stream}.{sequence}.{attempt.number}"
        await self._broker.put(self._broker.names.attempts, key, attempt.model_dump_json().encode())
        return attempt

    def ended(self, delivery: Delivery, error: str) -> Attempt:
        """Our attempt at a message, which ended with an error."""
        began = self._begun.get(_place(delivery)) or self._attempt(delivery)
        return began.model_copy(update={"ended": error})

    async def close(self) -> None:
        """All is settled or handed back: nothing that we were at is to blame for our end."""
        self._begun.clear()
        await self._say(surely=True)

    def _attempt(self, delivery: Delivery) -> Attempt:
        return Attempt(number=delivery.deliveries, at_s=time.time(), **self._who)

    async def _say(self, surely: bool) -> None:
        """Not awaited to be stored, for that would cost each item a round trip: a word that is lost blames nobody.

        A first attempt does not even wait until the kernel has it, which takes microseconds that no engine dies in; the
        next ones do, so that what ends a process sooner still comes to its end.
        """
        blamed = {place: self._begun[place] for place in self._begun if self._suspect in (None, place)}
        words = [[*place, attempt.model_dump()] for place, attempt in blamed.items()]
        subject, body = f"$KV.{self._broker.names.attempts}.begun.{self._life}", json.dumps(words).encode()
        with suppress(Away):
            await (self._broker.connection.send_now if surely else self._broker.connection.send)(subject, body)


def _place(delivery: Delivery) -> Place:
    return delivery.stream, delivery.stream_seq
