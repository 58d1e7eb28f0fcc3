"""Follows how far jobs are by their results and by their manifests, which any process may change."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.inventory import follow_inventories
from pipelines.job_records import job_key
from pipelines.values import decoded
from schemas.jobs import JobState, Manifest


async def follow_progress(broker: Broker, manifests: Sequence[Manifest]) -> AsyncGenerator[Manifest, None]:
    """The progress of each of these jobs of one tenant, now and whenever it changes, for ever.

    The results of a job that is over may be gone before they are read here, and then its manifest says how it ended. A
    job that is begun again is followed in its next generation; one that is deleted is reported as cancelled.
    """
    following = _Following(broker, manifests)
    try:
        following.open()
        while True:
            yield await following.next()
    finally:
        await following.close()


class _Following:
    """Reads results and manifests in two tasks."""

    def __init__(self, broker: Broker, manifests: Sequence[Manifest]) -> None:
        self._broker = broker
        self._known = {job_key(each.job.tenant, each.job.id): each for each in manifests}
        self._bucket = broker.names.jobs_of(manifests[0].job.tenant) if manifests else ""
        self._found: asyncio.Queue[Manifest | Exception] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        if self._known:
            self._tasks = [self._start(self._manifests), self._start(self._results)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self) -> Manifest:
        found = await self._found.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self, step: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        async def guarded() -> None:
            try:
                await step()
            except Exception as error:
                self._found.put_nowait(error)

        return asyncio.create_task(guarded())

    async def _results(self) -> None:
        async with aclosing(follow_inventories(self._broker, list(self._known.values()))) as following:
            async for taken in following:
                for each in taken:
                    self._found.put_nowait(each.progress)

    async def _manifests(self) -> None:
        async for key, body in follow_bucket(self._broker, self._bucket, *self._known, deleted=True):
            known = self._known[key]
            gone = known.model_copy(update={"state": JobState.CANCELLED})
            manifest = decoded(Manifest, body, f"the manifest of job {key}") if body else gone
            if manifest is None:
                continue
            self._known[key] = manifest
            if manifest.state.ended:
                self._found.put_nowait(manifest)
            elif manifest.job.generation != known.job.generation:  # results of it that were read did not count
                self._tasks[1].cancel()
                await asyncio.wait(self._tasks[1:])
                self._tasks[1] = self._start(self._results)
