"""A job has one Done, whatever comes at whichever moment of its end: a cancel, or the death of its collector."""

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from pipelines.blobs import load
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.collecting import CollectedJob
from pipelines.finishing import finish
from pipelines.job_records import CollectedElsewhere, JobCancelled, JobRecord
from pipelines.jobs import begin, cancel, finish_cancel
from pipelines.publish import Publisher
from schemas.jobs import JobRef, JobState, Manifest
from schemas.messages import decode
from schemas.parts import PartHeader
from schemas.results import Done
from schemas.settings import Settings
from schemas.subjects import HEADER_PART, HEADER_TYPE
from tests.integration.queues import a_fleet
from tests.integration.test_forged import a_result

finishing: ContextVar[bool] = ContextVar("finishing", default=False)
WAIT_S = 60.0


class Moments:
    """Calls `at` before the request of number `number` that the end of a job makes, counted from 0."""

    def __init__(self, broker: Broker, number: int, at: Callable[[], Awaitable[None]]) -> None:
        self.count, self._number, self._at = 0, number, at
        self._request, self._request_many = broker.connection.request, broker.connection.request_many
        broker.connection.request = self.request  # type: ignore[method-assign]
        broker.connection.request_many = self.request_many  # type: ignore[method-assign]

    async def request(self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Msg:
        await self._moment()
        return await self._request(subject, body, headers)

    async def request_many(self, subject: str, body: bytes) -> list[Msg]:
        await self._moment()
        return await self._request_many(subject, body)

    async def _moment(self) -> None:
        if finishing.get():
            number, self.count = self.count, self.count + 1
            if number == self._number:
                finishing.set(False)
                await self._at()
                finishing.set(True)


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`finishing` is set in the task that ends a job."""

    async def marking(*given: Any) -> None:
        finishing.set(True)
        await finish(*given)

    monkeypatch.setattr("pipelines.collect.finish", marking)


async def send_result(broker: Broker, job: JobRef) -> None:
    body, meta = a_result(job)
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader.of(meta).header()}
    await broker.publish(broker.names.results(job), body, f"{job.id}/result", headers)


async def begun(broker: Broker, publisher: Publisher, name: str) -> JobRecord:
    record = await begin(broker, Manifest(job=publisher.ref(name), name=name))
    await record.change(segments=1, total=1, state=JobState.PUBLISHED)
    return record


async def stored(broker: Broker, job: JobRef) -> tuple[list[Done], list[str]]:
    """The Dones of a job at the broker, and the types of all else."""
    dones, others = [], []
    async for message in broker.read(broker.names.results_stream, broker.names.results(job)):
        decoded = decode(await load(broker, message))[0] if message.headers[HEADER_TYPE] == "done" else None
        if isinstance(decoded, Done):
            dones.append(decoded)
        else:
            others.append(message.headers[HEADER_TYPE])
    return dones, others


@asynccontextmanager
async def heard(broker: Broker, job: JobRef) -> AsyncIterator[list[Done]]:
    """All Dones of a job that a subscriber hears."""
    found: list[Done] = []

    async def take(message: Msg) -> None:
        if (message.headers or {}).get(HEADER_TYPE) == "done":
            done, _ = decode(message.data)
            assert isinstance(done, Done)
            found.append(done)

    subscription = await broker.connection.nc.subscribe(broker.names.results(job), cb=take)
    await broker.connection.flush()
    yield found
    await broker.connection.flush()
    await subscription.unsubscribe()


@pytest.mark.parametrize("delivers", [False, True])
async def test_a_cancel_at_any_moment_of_the_end_leaves_one_done(
    settings: Settings, tmp_path: Path, delivers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel has found the job unfinished before, and writes so at each request that the job's end makes."""
    reached, go_on, settle = asyncio.Event(), asyncio.Event(), JobRecord.settle_as_cancelled

    async def waiting(record: JobRecord) -> None:
        reached.set()
        await go_on.wait()
        await settle(record)

    monkeypatch.setattr(JobRecord, "settle_as_cancelled", waiting)
    ends = []
    async with a_fleet(settings) as (_, publisher), Broker.connected(settings, name="other") as other:

        async def deliver(job: JobRef, files: list[Path]) -> None:
            await other.publish(other.names.results(job), b"a file", f"{job.id}/file", {HEADER_TYPE: "file"})

        number = 0
        while not ends or ends[-1][1]:
            reached.clear(), go_on.clear()
            record = await begun(other, publisher, f"film-{delivers}-{number}")
            job, folder = record.manifest.job, tmp_path / str(number)
            cancelling = asyncio.create_task(cancel(other, record.manifest))
            await reached.wait()

            async def at(cancelling: asyncio.Task[Manifest] = cancelling) -> None:
                go_on.set()
                await asyncio.shield(cancelling)

            async with heard(other, job) as dones, Broker.connected(settings, name="collector") as collecting:
                moments = Moments(collecting, number, at)
                collector = Collector(collecting, publisher.spec, deliver=deliver if delivers else None)
                await collector.open({job: folder / "film"})
                await send_result(other, job)
                async with asyncio.timeout(WAIT_S):
                    try:
                        await collector.wait(job.id)
                    except JobCancelled:
                        was_cancelled = True
                    else:
                        was_cancelled = False
                    await collector.close()
                met = go_on.is_set()
                go_on.set()
                await cancelling
                if was_cancelled and delivers:  # as a worker that collects does
                    await finish_cancel(other, job, again=True)
            at_broker, others = await stored(other, job)
            manifest = (await JobRecord.current(other, job)) if not was_cancelled else await JobRecord.read(other, job)
            assert manifest is not None
            assert [done.cancelled for done in at_broker] == [was_cancelled], (number, moments.count)
            assert dones == at_broker, number
            assert (manifest.manifest.state is JobState.CANCELLED) is was_cancelled, number
            assert [path.name for path in folder.rglob("*")] == ([] if was_cancelled else ["film.npz"]), number
            assert others == ([] if was_cancelled or not delivers else ["file"]), number
            ends.append((was_cancelled, met))
            number += 1
    assert {was_cancelled for was_cancelled, _ in ends} == {True, False}
    assert len(ends) > 4


async def test_a_collector_that_dies_at_any_moment_of_the_end_leaves_it_to_the_next(
    settings: Settings, tmp_path: Path
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        number, met = 0, True
        while met:
            record = await begun(broker, publisher, f"film-{number}")
            job, dead = record.manifest.job, asyncio.Event()

            async def die(dead: asyncio.Event = dead) -> None:
                dead.set()
                await asyncio.Event().wait()

            async with heard(broker, job) as dones:
                async with Broker.connected(settings, name="first") as first:
                    Moments(first, number, die)
                    collector = Collector(first, publisher.spec)
                    await collector.open({job: tmp_path / f"first-{number}"})
                    await send_result(broker, job)
                    waiting = asyncio.create_task(collector.wait(job.id))
                    dying = asyncio.create_task(dead.wait())
                    async with asyncio.timeout(WAIT_S):
                        await asyncio.wait({waiting, dying}, return_when=asyncio.FIRST_COMPLETED)
                    dying.cancel()
                    met = dead.is_set()
                    await collector.close()
                    waiting.cancel()
                known = await begin(broker, Manifest(job=job, name=job.id))
                if known.manifest.job == job:  # else another job has begun: this one is over, its results are gone
                    second = Collector(broker, publisher.spec)
                    await second.open({job: tmp_path / f"second-{number}"})
                    try:
                        async with asyncio.timeout(WAIT_S):
                            await second.wait(job.id)
                    except CollectedElsewhere:
                        pass
                    await second.close()
            assert [(done.job, done.cancelled, done.frames) for done in dones] == [(job, False, 1)], number
            number += 1
        assert number > 4


async def test_what_a_collector_that_died_has_published_stays(settings: Settings, tmp_path: Path) -> None:
    """It died after its Done, and before it deleted the parts: the next one takes the parts, and no more."""
    delivered: list[Path] = []

    async def deliver(job: JobRef, files: list[Path]) -> None:
        delivered.extend(files)
        body = b"".join(file.read_bytes() for file in files)
        await broker.publish(broker.names.results(job), body, f"{job.id}/file", {HEADER_TYPE: "file"})

    async def later(job: CollectedJob, compare: Any) -> Any:  # as where another job's files keep the threads busy
        await asyncio.sleep(0.5)
        return await closed(job, compare)

    closed = CollectedJob.closed
    async with a_fleet(settings) as (broker, publisher):
        for number in range(2):
            record = await begun(broker, publisher, f"film-{number}")
            job = record.manifest.job
            await send_result(broker, job)
            for again in range(2):
                collector = Collector(broker, publisher.spec, deliver=deliver)
                with pytest.MonkeyPatch.context() as patch:
                    if again:
                        patch.setattr(CollectedJob, "closed", later)
                    else:
                        patch.setattr("pipelines.collecting.CollectedJob.forget_results", nothing)
                    await collector.open({job: tmp_path / f"{number}-{again}"})
                    async with asyncio.timeout(WAIT_S):
                        await collector.wait(job.id)
                    await collector.close()
            dones, others = await stored(broker, job)
            assert (len(dones), others) == (1, ["file"])
    assert len(delivered) == 4


async def nothing(*_: object) -> None: ...


async def test_a_cancel_that_died_before_its_done_is_finished_by_the_collector(
    settings: Settings, tmp_path: Path
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        record = await begun(broker, publisher, "film")
        job = record.manifest.job
        await record.settle_as_cancelled()
        collector = Collector(broker, publisher.spec)
        await collector.open({job: tmp_path / "film"})
        await send_result(broker, job)
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(collector.wait("film"), WAIT_S)
        await collector.close()
        for _ in range(2):
            dones, others = await stored(broker, job)
            assert ([done.cancelled for done in dones], others) == ([True], [])
            await finish_cancel(broker, job)
            await cancel(broker, record.manifest)
        assert list(tmp_path.iterdir()) == []


async def test_a_job_with_failures_that_is_collected_again_has_one_done(settings: Settings, tmp_path: Path) -> None:
    async with a_fleet(settings) as (broker, publisher):
        record = await begun(broker, publisher, "film")
        job = record.manifest.job
        await publisher.give_up(record, JobCancelled(job))  # a failure of all of it
        for name in ("one", "two"):
            collector = Collector(broker, publisher.spec)
            await collector.open({job: tmp_path / name})
            done = await asyncio.wait_for(collector.wait("film"), WAIT_S)
            await collector.close()
            assert (await stored(broker, job))[0] == [done]


class SlowToClose:
    """An assembler that writes one file, in a `close` that takes until `go_on`. It cannot be stopped."""

    def __init__(self, target: Path) -> None:
        self.notes: list[str] = []
        self._target = target
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def add(self, *_: object) -> None: ...

    def add_tracks(self, *_: object) -> None: ...

    def close(self) -> list[Path]:
        self.begun.set()
        self.go_on.wait(WAIT_S)
        self._target.write_bytes(b"all of it")
        self.ended.set()
        return [self._target]

    def abort(self) -> None: ...


async def test_a_collector_that_is_closed_while_any_format_finishes_leaves_no_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        job = (await begun(broker, publisher, "film")).manifest.job
        collector = Collector(broker, publisher.spec)
        made = SlowToClose(tmp_path / "film.npz")
        monkeypatch.setattr(collector._format, "assemble", lambda *_: made)
        await collector.open({job: tmp_path / "film"})
        await send_result(broker, job)
        assert await asyncio.to_thread(made.begun.wait, WAIT_S)
        closing = asyncio.create_task(collector.close())
        while not collector._tasks or not all(task.cancelling() or task.done() for task in collector._tasks):
            await asyncio.sleep(0)
        made.go_on.set()
        await closing
        assert await asyncio.to_thread(made.ended.wait, WAIT_S)
        assert list(tmp_path.iterdir()) == []
        assert (await stored(broker, job))[0] == []


async def test_a_step_that_is_cancelled_before_it_begins_leaves_no_line(settings: Settings, tmp_path: Path) -> None:
    """As where a command ends while the last result of a job comes: Python would write a line on stderr."""
    async with a_fleet(settings) as (broker, publisher):
        record = await begun(broker, publisher, "job")
        collector = Collector(broker, publisher.spec)
        await collector.open({record.manifest.job: tmp_path / "job"})
        job = collector._jobs["job"]
        with warnings.catch_warnings(record=True) as written:
            warnings.simplefilter("always")
            collector._in_background(job, collector._note)
            await collector.close()
            gc.collect()
        assert [str(each.message) for each in written] == []
