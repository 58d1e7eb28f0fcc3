"""What a worker publishes while it computes on: bounded in bytes, and each lease kept until its piece is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pipelines.broker import Broker
from workers.lease import Lease

UNSENT_BYTES = 32 << 20  # on their way to the broker before computing pauses: the pressure of law 4


class Outbox:
    """Sends beside the computing; `on_stored` is called with the lease when a piece of it is durable (law 1)."""

    def __init__(self, broker: Broker, on_stored: Callable[[Lease], Awaitable[None]]) -> None:
        self._broker = broker
        self._on_stored = on_stored
        self._sending: set[asyncio.Task[None]] = set()
        self._unsent_bytes = 0
        self._sent = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._sending)

    def send(self, lease: Lease, subject: str, body: bytes, message_id: str, headers: Mapping[str, str]) -> None:
        """Publish a piece of a lease's input."""
        self._unsent_bytes += len(body)

        async def send() -> None:
            try:
                await self._broker.publish(subject, body, message_id, headers)
                await self._on_stored(lease)
            finally:
                self._unsent_bytes -= len(body)
                self._sent.set()

        sending = asyncio.create_task(send())
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self._unsent_bytes > UNSENT_BYTES:
            self._sent.clear()
            await self._sent.wait()

    async def empty(self) -> None:
        """Wait until all is sent."""
        await asyncio.gather(*self._sending, return_exceptions=True)
