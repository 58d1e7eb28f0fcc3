"""Results by their headers alone: what is there of a job is counted without reading what it is."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pipelines.broker import Broker, Stored
from pipelines.pull import Delivery, Pull

AHEAD = 256  # headers asked for at a time while there are many
STUCK_S = 1.0  # what was there may be deleted before it reaches us: ask after so long


async def marks(broker: Broker, subjects: Sequence[str]) -> AsyncIterator[Stored]:
    """All results on `subjects` that are there now, in order, without their bodies."""
    async with aclosing(follow_marks(broker, subjects)) as following:
        async for stored in following:
            if stored is None:
                return
            yield stored


async def follow_marks(broker: Broker, subjects: Sequence[str]) -> AsyncGenerator[Stored | None, None]:
    """Results on `subjects` without their bodies: those that are there now, then None, then those to come, for ever."""
    stream, consumer = broker.names.results_stream, f"marks-{uuid.uuid4().hex[:12]}"
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    backlog = await broker.create_reader(stream, consumer, subjects, headers_only=True)
    pull = Pull(broker, stream, consumer, arrived.put)
    await pull.open()
    try:
        while backlog > 0:
            pull.request(min(backlog, AHEAD) - pull.outstanding)
            try:
                async with asyncio.timeout(STUCK_S):
                    delivery = await arrived.get()
            except TimeoutError:
                backlog = await _pending(broker, stream, consumer) + arrived.qsize()
                continue
            backlog = min(backlog - 1, delivery.pending + arrived.qsize())
            yield _stored(delivery)
        yield None
        while True:
            pull.request(1 - pull.outstanding)
            yield _stored(await arrived.get())
    finally:
        await pull.close()
        await broker.drop_reader(stream, consumer)


async def _pending(broker: Broker, stream: str, consumer: str) -> int:
    info = await broker.api_unless_gone(f"CONSUMER.INFO.{stream}.{consumer}")
    return 0 if info is None else int(info["num_pending"])


def _stored(delivery: Delivery) -> Stored:
    return Stored(delivery.subject, delivery.stream_seq, delivery.headers, b"")
