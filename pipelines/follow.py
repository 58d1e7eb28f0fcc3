"""Follows a stream or a bucket: existing messages, then new ones, in order and each once.

It uses a consumer of the stream. A subscription to the subjects beside one reading of the stream misses a message
that is published before the subscription and stored after the reading: about one in a hundred, when both begin at the
moment of the message.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pipelines.broker import DELETED, ApiError, Broker, Stored
from pipelines.delivery import Delivery
from pipelines.jetstream import CONSUMER_NOT_FOUND, StreamGone
from pipelines.pull import Pull

PREFETCH = 256  # messages asked for at a time while there are many
LIVE = 8  # asked for in advance afterwards, so that what comes together waits for no request; again at half of it
STUCK_S = 1.0  # existing messages may be deleted before they arrive: count again after this time
ABSENT_S = 0.2  # between checks for a bucket that does not exist yet


async def follow(
    broker: Broker, stream: str, subjects: Sequence[str], headers_only: bool = False, first: int = 1
) -> AsyncGenerator[Stored | None, None]:
    """Messages of a stream on `subjects`: those that are there now, then None, then those to come, for ever.

    `first` is the sequence in the stream to begin at. A stream that is deleted and created anew is followed from its
    beginning. Raises StreamGone when there is none.
    """
    consumer = f"follow-{broker.connection.unique()}"
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    backlog = await broker.create_reader(stream, consumer, subjects, first, headers_only)
    pull = Pull(broker, stream, consumer, arrived.put)
    try:
        await pull.open()
        while backlog > 0:
            pull.request(min(backlog, PREFETCH) - pull.outstanding)
            try:
                async with asyncio.timeout(STUCK_S):
                    delivery = await arrived.get()
            except TimeoutError:
                left = await pending(broker, stream, consumer)
                backlog = backlog if left is None else left + arrived.qsize()
                continue
            backlog = min(backlog - 1, delivery.pending + arrived.qsize())
            yield _stored(delivery)
        yield None
        while True:
            ahead = pull.outstanding + arrived.qsize()
            pull.request(LIVE - ahead if ahead <= LIVE // 2 else 0)
            yield _stored(await arrived.get())
    finally:
        await pull.close()
        await broker.drop_reader(stream, consumer)


async def follow_bucket(
    broker: Broker, bucket: str, *patterns: str, current: asyncio.Event | None = None, deleted: bool = False
) -> AsyncIterator[tuple[str, bytes]]:
    """Keys and values of a bucket, those there are and then every change, for ever; the bucket may come later.

    Without `patterns` all of its keys.

    `current` is set once those that there were at the call have been taken. With `deleted` also the keys that are
    deleted, with an empty value.
    """
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    subjects = [prefix + pattern for pattern in patterns or (">",)]
    while True:
        try:
            async with aclosing(follow(broker, stream, subjects)) as following:
                async for stored in following:
                    if stored is None:
                        _set(current)
                    elif deleted or DELETED not in stored.headers:
                        yield stored.subject.removeprefix(prefix), b"" if DELETED in stored.headers else stored.body
        except StreamGone:
            _set(current)
            await asyncio.sleep(ABSENT_S)


def _set(event: asyncio.Event | None) -> None:
    if event is not None:
        event.set()


async def pending(broker: Broker, stream: str, consumer: str) -> int | None:
    """How many messages are still to be given out to a reader; None when it is gone: its `Pull` makes it again.

    Raises StreamGone.
    """
    try:
        return int((await broker.api(f"CONSUMER.INFO.{stream}.{consumer}"))["num_pending"])
    except ApiError as error:
        if error.code != CONSUMER_NOT_FOUND:
            raise
        return None


def _stored(delivery: Delivery) -> Stored:
    return Stored(delivery.subject, delivery.stream_seq, delivery.headers, delivery.content)
