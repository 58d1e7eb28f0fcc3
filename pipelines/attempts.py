"""Attempts that did not finish a message. After too many, a message that crashes its workers becomes a dead letter.

The server counts all deliveries: also of messages that were handed back, and of messages that only waited in a worker
that another message crashed. So each worker process stores what it has begun under one key, which the next
write of the same process replaces. What a crashed process stored stays, and the next worker with the message reads it.
"""

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress

from pydantic import RootModel

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.inbox import Away
from pipelines.values import decoded
from schemas.results import Attempt

Place = tuple[str, int]  # stream, sequence: which message
Begun = RootModel[list[tuple[str, int, Attempt]]]  # what a process had begun, each with its place


class Attempts:
    """Stores what one worker process has begun, and loads earlier attempts at a message."""

    def __init__(self, broker: Broker, worker: str, host: str, device: str) -> None:
        self._broker = broker
        self._process = broker.connection.unique()
        self._rows: dict[tuple[str, int, int], str] = {}  # what was stored last: each attempt is written in JSON once
        self._origin = {"worker": worker, "host": host, "device": device}

    async def of(self, delivery: Delivery) -> tuple[Attempt, ...]:
        """Earlier attempts at a message, in order. Asks the broker only for a message that was delivered before."""
        if delivery.deliveries == 1:
            return ()
        place = _place(delivery)
        stored, failed = await asyncio.gather(
            self._broker.items(self._broker.names.attempts, "begun.*"),
            self._broker.items(self._broker.names.attempts, f"failed.{place[0]}.{place[1]}.*"),
        )
        begun = (decoded(Begun, body, f"attempts {key}") for key, body in stored.items())
        ended = (decoded(Attempt, body, f"attempt {key}") for key, body in failed.items())
        known = {at.number: at for each in begun if each for *where, at in each.root if tuple(where) == place}
        known |= {attempt.number: attempt for attempt in ended if attempt}
        known.pop(delivery.deliveries, None)  # this one
        return tuple(known[number] for number in sorted(known))

    def new(self, delivery: Delivery) -> Attempt:
        """This worker's attempt at a message, from now on."""
        return Attempt(number=delivery.deliveries, at_s=self._broker.now_s(), **self._origin)

    async def store_begun(self, begun: Iterable[tuple[Delivery, Attempt]], surely: bool) -> None:
        """Store which messages this process has begun and not finished; replaces what it stored before.

        It does not wait for the broker's answer, which would cost a round trip for each message: if this write is lost,
        the attempt is not counted as a crash. With `surely` it waits until the kernel has the write: a message that may
        have crashed a worker before must be counted this time.
        """
        rows = {(*_place(delivery), attempt.number): attempt for delivery, attempt in begun}
        self._rows = {key: self._rows.get(key) or _row(*key[:2], attempt) for key, attempt in rows.items()}
        subject = f"$KV.{self._broker.names.attempts}.begun.{self._process}"
        body = f"[{','.join(self._rows.values())}]".encode()
        connection = self._broker.connection
        with suppress(Away):
            await connection.send_now(subject, body) if surely else connection.send(subject, body)

    async def store_failed(self, delivery: Delivery, attempt: Attempt) -> None:
        """Store an attempt that ended with an error, before the message is delivered again."""
        stream, sequence = _place(delivery)
        key = f"failed.{stream}.{sequence}.{attempt.number}"
        await self._broker.put(self._broker.names.attempts, key, attempt.model_dump_json().encode())


def _place(delivery: Delivery) -> Place:
    return delivery.stream, delivery.stream_seq


def _row(stream: str, sequence: int, attempt: Attempt) -> str:
    """A row of `Begun` as JSON."""
    return f"[{json.dumps(stream)},{sequence},{attempt.model_dump_json()}]"
