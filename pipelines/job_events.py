"""What happens to a job, from the broker alone: any process can follow any job, also one that ended."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from nats.aio.msg import Msg

from pipelines.broker import Broker, Stored
from pipelines.follow import follow_bucket
from pipelines.inventory import Inventory, count_part
from pipelines.job_files import JobFile
from pipelines.job_records import JobRecord, job_place
from pipelines.result_index import follow_result_index, result_of
from pipelines.values import decoded
from schemas.errors import MessageError, StoreError
from schemas.jobs import JobRef, JobState, Manifest
from schemas.messages import decode
from schemas.parts import PartHeader
from schemas.results import Delta, Done, Failure
from schemas.subjects import HEADER_TYPE

WAITING = 1024  # events that a slow reader has not taken yet; then the broker is not read, and deltas are left out
PROGRESS_S = 1.0  # between two reports of progress that are counted from parts
LATER_S = 1.0  # until changes of a manifest that was read just now are followed: short jobs need no reader for them
LAST_S = 5.0  # after the manifest says that the job ended, between looks whether its Done comes
LOOKS = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the job is, as its manifest and the results at the broker say."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PartMade:
    """The result of a part is at the broker; `sequence` is its place in the stream of results."""

    sequence: int
    header: PartHeader


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A part, or all of the job, will have no result."""

    sequence: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class TextWritten:
    """New text of an answer that is being written; it is not kept."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class FileMade:
    """A finished file is at the broker."""

    sequence: int
    file: JobFile


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over. It is the last event; `sequence` is 0 where the Done itself is gone from the broker."""

    sequence: int
    done: Done


Event: TypeAlias = Progress | PartMade | PartFailed | TextWritten | FileMade | Ended


async def job_events(
    broker: Broker, job: JobRef, after: int = 0, known: Manifest | None = None
) -> AsyncGenerator[Event, None]:
    """What happened to a job and what happens, until it is over: results in the order of the stream, each once.

    `after`: without those up to this sequence. `known`: its manifest, read just now. Only text that is written from now
    on is given. Raises BrokerError.
    """
    following = _Following(broker, job, after, known)
    try:
        await following.open()
        while True:
            event = await following.next()
            yield event
            if isinstance(event, Ended):
                return
    finally:
        await following.close()


class _Following:
    """Reads results, manifest and new text of a job in tasks, and gives events in one order."""

    def __init__(self, broker: Broker, job: JobRef, after: int, known: Manifest | None) -> None:
        self._broker = broker
        self._job = job
        self._after = after
        self._known = known
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue(WAITING)
        self._inventory = Inventory(Manifest(job=job, name=""))
        self._unreported = False  # results were counted since the last report of progress
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Any = None

    async def open(self) -> None:
        self._subscription = await self._broker.connection.nc.subscribe(
            self._broker.names.deltas(self._job), cb=self._on_delta
        )
        if self._known is None:
            record = await JobRecord.read(self._broker, self._job)
            self._known = None if record is None else record.manifest
        if self._known is not None:
            self._take(self._known)
            await self._events.put(Progress(self._inventory.progress))
        steps: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (self._results, self._manifest, self._reports)
        self._tasks = [asyncio.create_task(self._guarded(step)) for step in steps]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None:
            with suppress(Exception):  # the connection is away: the subscription ended with it
                await self._subscription.unsubscribe()

    async def next(self) -> Event:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _guarded(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await step()
        except Exception as error:
            await self._events.put(error)

    def _take(self, manifest: Manifest) -> None:
        if manifest.job.generation != self._inventory.manifest.job.generation:  # it was started again
            self._inventory = Inventory(manifest)
        self._inventory.manifest = manifest
        self._inventory.total = manifest.total if self._inventory.total is None else self._inventory.total

    async def _on_delta(self, message: Msg) -> None:
        with suppress(MessageError, asyncio.QueueFull):  # the result of the part has all of the text
            delta, _ = decode(message.data)
            if isinstance(delta, Delta):
                self._events.put_nowait(TextWritten(delta))

    async def _manifest(self) -> None:
        if self._known is not None:
            await asyncio.sleep(LATER_S)
        bucket, place = job_place(self._broker, self._job)
        async for key, body in follow_bucket(self._broker, bucket, place, deleted=True):
            if not body:  # its results are gone too, so that no Done comes
                await self._events.put(Ended(0, _done_of(self._inventory.manifest, deleted=True)))
                return
            manifest = decoded(Manifest, body, f"the manifest of job {key}")
            if manifest is None or manifest == self._inventory.manifest:
                continue
            self._take(manifest)
            await self._report()
            if manifest.state.ended:
                await self._end_late()

    async def _on_last_known(self) -> None:
        """All results at the broker are read. The Done of a job that ended a moment ago may come behind them.

        A job that had not ended before they were read has its Done behind them: `_manifest` sees its end.
        """
        if self._known is not None and not self._known.state.ended:
            if self._unreported:
                await self._report()
            return
        record = await JobRecord.read(self._broker, self._job)
        if record is None or not record.manifest.state.ended:  # not read again here: its Done comes after its end
            return
        if self._broker.now_s() - record.stored_s < LAST_S * LOOKS:
            self._tasks.append(asyncio.create_task(self._guarded(self._end_late)))
        else:
            await self._events.put(Ended(0, _done_of(record.manifest)))

    async def _end_late(self) -> None:
        """Wait for the Done of a job that has just ended; not for long where all its results were deleted."""
        results = self._broker.names.results(self._job)
        stream = self._broker.names.results_for(results)
        for _ in range(LOOKS):
            await asyncio.sleep(LAST_S)
            if await self._broker.last(stream, results) is None:
                break
        await self._end_without_done()

    async def _reports(self) -> None:
        """Report what was counted, also the last of it: no manifest and no Done need come after that."""
        while True:
            if self._unreported:
                await self._report()
            await asyncio.sleep(PROGRESS_S)

    async def _report(self) -> None:
        self._unreported = False
        await self._events.put(Progress(self._inventory.progress))

    async def _results(self) -> None:
        results = self._broker.names.results(self._job)
        # all of them are counted, also those that the caller knows
        async with aclosing(follow_result_index(self._broker, [results])) as following:
            async for stored in following:
                if stored is None:
                    await self._on_last_known()
                else:
                    await self._on_result(stored)

    async def _on_result(self, stored: Stored) -> None:
        kind = stored.headers.get(HEADER_TYPE, "")
        if kind == "part":
            await self._on_part(stored)
        elif kind == "file" and stored.sequence > self._after:
            file = await JobFile.of(self._broker, stored)
            if file is not None:
                await self._events.put(FileMade(stored.sequence, file))
        elif kind in ("failure", "done"):
            await self._on_message(stored)

    async def _on_part(self, stored: Stored) -> None:
        header = await count_part(self._broker, self._inventory, stored)
        if header is None:
            return
        self._unreported = True
        if stored.sequence > self._after:
            await self._events.put(PartMade(stored.sequence, header))

    async def _on_message(self, stored: Stored) -> None:
        try:
            message = await result_of(self._broker, stored)
        except StoreError:
            return
        generation = self._inventory.manifest.job.generation
        if isinstance(message, Done) and message.job.generation >= generation:
            await self._events.put(Ended(stored.sequence, message))
        elif isinstance(message, Failure) and message.key.job.generation == generation:
            self._inventory.add(message)
            self._unreported = True
            if stored.sequence > self._after:
                await self._events.put(PartFailed(stored.sequence, message))

    async def _end_without_done(self) -> None:
        """Where the job is over and its Done was deleted, make one of its manifest; the reader has all else by then."""
        record = await JobRecord.read(self._broker, self._job)
        if record is not None and record.manifest.state.ended:
            await self._events.put(Ended(0, _done_of(record.manifest)))


def _done_of(known: Manifest, deleted: bool = False) -> Done:
    return Done(
        job=known.job,
        segments=known.total or 0,
        frames=known.frames,
        lost=known.lost,
        failures=known.reasons,
        more_failures=max(0, known.failures - len(known.reasons)),
        missing=known.missing,
        cancelled=known.state is JobState.CANCELLED or (deleted and not known.state.ended),
        files=known.files,
        notes=known.notes,
    )
