"""Results by their headers alone: what is there of a job is counted without reading what it is."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pipelines.broker import Broker, Stored
from pipelines.follow import follow


async def result_index(broker: Broker, subjects: Sequence[str]) -> AsyncIterator[Stored]:
    """All results on `subjects` that are there now, in order, without their bodies."""
    async with aclosing(follow_result_index(broker, subjects)) as following:
        async for stored in following:
            if stored is None:
                return
            yield stored


def follow_result_index(broker: Broker, subjects: Sequence[str]) -> AsyncGenerator[Stored | None, None]:
    """Results on `subjects` without their bodies: those that are there now, then None, then those to come, for ever."""
    return follow(broker, broker.names.results_stream, subjects, headers_only=True)
