"""Results without their bodies: the headers are enough to count what exists of a job."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pipelines.blobs import load
from pipelines.broker import Broker, Stored
from pipelines.follow import follow
from schemas.base import Message
from schemas.messages import decode


async def result_index(broker: Broker, subjects: Sequence[str]) -> AsyncIterator[Stored]:
    """All existing results on `subjects`, in order, without their bodies."""
    async with aclosing(follow_result_index(broker, subjects)) as following:
        async for stored in following:
            if stored is None:
                return
            yield stored


def follow_result_index(broker: Broker, subjects: Sequence[str], first: int = 1) -> AsyncGenerator[Stored | None, None]:
    """Results on `subjects` without their bodies, from sequence `first` on: those there, then None, then new ones.

    The subjects are of one tenant.
    """
    [stream] = {broker.names.results_for(subject) for subject in subjects}
    return follow(broker, stream, subjects, headers_only=True, first=first)


async def result_of(broker: Broker, stored: Stored) -> Message | None:
    """The message of an entry; None if a retry or a collector deleted it meanwhile, or if it is none of rigflow, which
    collectors report. Raises StoreError when its object is gone.
    """
    entire = await broker.message(broker.names.results_for(stored.subject), stored.sequence)
    if entire is None:
        return None
    try:
        return decode(await load(broker, entire))[0]
    except ValueError:
        return None
