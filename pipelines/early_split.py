"""The first segment of a small file is cut while the broker is asked about its pipeline and its job."""

import asyncio
from collections.abc import Iterator
from typing import Self

from engines.media.segment_data import SegmentData

MOST_BYTES = 64 << 20  # of a file: to read a large one in vain, where its job is done already, would keep the command


class EarlySplit(Iterator[SegmentData]):
    """The segments of a media, the first of which a thread cuts from now on. Use it after `ready`."""

    def __init__(self, segments: Iterator[SegmentData]) -> None:
        self._segments = segments
        self._first: asyncio.Task[SegmentData | None] | None = asyncio.create_task(
            asyncio.to_thread(next, segments, None)
        )
        self._first.add_done_callback(_noted)

    async def ready(self) -> Self:
        """Itself, once the first segment is cut, or could not be: `next` raises why."""
        if self._first is not None:
            await asyncio.wait([self._first])
        return self

    def __next__(self) -> SegmentData:
        if self._first is None:
            return next(self._segments)
        first, self._first = self._first.result(), None
        if first is None:
            raise StopIteration
        return first


def _noted(first: "asyncio.Task[SegmentData | None]") -> None:
    """Note its error as read: that of a job that is not sent is raised nowhere."""
    if not first.cancelled():
        first.exception()
