"""Keeps a long media from filling the queue in front of all that comes after it."""

import asyncio
from collections.abc import Callable

from pipelines.broker import Broker

LEAST = 8  # messages that may wait in the queue, whatever the fleet; as many as it has in flight, twice, otherwise
LOOK_S = 0.05  # between two looks at a full queue


class QueueShare:
    """The share of a queue that media in a fleet may take: enough for its workers to be busy.

    A media whose segments all wait at once is followed by the next one only when it is processed as a whole. With this
    one, a short media waits for a few segments of each long one.
    """

    def __init__(self, broker: Broker, stream: str, consumer: str, on_wait: Callable[[bool], None]) -> None:
        """`on_wait` is called with True when a wait begins, and with False when it ends."""
        self._broker = broker
        self._consumer = f"{stream}.{consumer}"
        self._on_wait = on_wait

    async def room(self) -> None:
        """Wait until the queue has room for another segment. Raises BrokerError."""
        if await self._has_room():
            return
        self._on_wait(True)
        try:
            while not await self._has_room():  # noqa: ASYNC110 - the broker does not say when a queue is shorter
                await asyncio.sleep(LOOK_S)
        finally:
            self._on_wait(False)

    async def _has_room(self) -> bool:
        known = await self._broker.api(f"CONSUMER.INFO.{self._consumer}")
        return int(known["num_pending"]) < max(LEAST, 2 * int(known["num_ack_pending"]))
