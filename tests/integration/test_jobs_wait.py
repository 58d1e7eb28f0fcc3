"""`rigflow jobs wait` ends with its jobs, whatever other processes do with them meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cli.jobs_wait import wait_for_jobs
from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.job_records import JobRecord
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode
from schemas.jobs import JobRef, JobState, Priority
from tests.cli import Running
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from workers.definitions import find_models, register


@asynccontextmanager
async def published(fleet: Fleet, clip: Path) -> AsyncIterator[tuple[Broker, Publisher, JobRef]]:
    """A job that is published, which no worker has taken yet."""
    async with Broker.connected(fleet.settings, "test") as broker:
        spec = builtin_pipeline("fingerprint")
        spec = await register(broker, fleet.settings, spec, find_models(spec, None))
        publisher = Publisher(broker, spec, "main", Priority.BULK)
        job = publisher.ref("mine")
        await publisher.publish(job, "video", [Input(clip, clip.name)])
        yield broker, publisher, job


async def until_followed(broker: Broker) -> None:
    """Wait until a process follows the results, and knows those that there are."""
    async with asyncio.timeout(60):
        while not (await broker.api(f"CONSUMER.LIST.{broker.names.results_stream}"))["consumers"]:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def waited_for(fleet: Fleet, clip: Path) -> AsyncIterator[tuple[Broker, Publisher, JobRef, Running]]:
    """The same job, and a `jobs wait` that follows it."""
    async with published(fleet, clip) as (broker, publisher, job):
        with Running("jobs", "wait", "mine", "--nats", fleet.settings.nats) as waiting:
            await until_followed(broker)
            yield broker, publisher, job, waiting


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path, Clip())


async def test_it_waits_for_a_job_that_is_begun_again(clip: Path, tmp_path: Path) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        async with waited_for(fleet, clip) as (broker, publisher, job, waiting):
            await broker.purge(broker.names.work_stream("fingerprint", "decode"), ">")
            record = await publisher.begin(job, clip.name)
            assert record.manifest.job.generation == 1
            await publisher.publish(record.manifest.job, "video", [Input(clip, clip.name)], record)
            fleet.add()
            assert await asyncio.to_thread(waiting.process.wait, 60) == 0
    assert "mine: done" in waiting.output


async def test_it_ends_though_all_results_are_gone_before_it_read_them(clip: Path, tmp_path: Path) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        async with waited_for(fleet, clip) as (broker, _, job, waiting):
            record = await JobRecord.read(broker, job)
            assert record is not None
            await record.change(state=JobState.DONE, frames=50)
            assert await asyncio.to_thread(waiting.process.wait, 60) == 0
    assert "mine: done, 50 frames" in waiting.output


async def test_it_ends_when_nothing_can_complete_the_job(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.jobs_wait.LOST_S", 0.1)
    output: list[str] = []
    with Fleet((), tmp_path / "cache") as fleet:
        async with published(fleet, clip) as (broker, _, job):
            record = await JobRecord.read(broker, job)
            assert record is not None
            given = [record.manifest], str, lambda text, **_: output.append(text)
            assert await wait_for_jobs(broker, given[0], 1.0, *given[1:]) is ExitCode.SOME_FAILED
            assert output == ["mine: not over within 1 s"], "its message is queued"
            await broker.purge(broker.names.work_stream("fingerprint", "decode"), ">")
            assert await wait_for_jobs(broker, given[0], 60.0, *given[1:]) is ExitCode.BROKER
    lost = "mine: the broker lost messages of job mine (deleted, or older than results_age_s)"
    assert output[1:] == [f"{lost}: publish it again; it is started again then"]


async def test_it_ends_when_a_job_is_deleted(clip: Path, tmp_path: Path) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        async with waited_for(fleet, clip) as (broker, _, job, waiting):
            record = await JobRecord.read(broker, job)
            assert record is not None
            await record.forget()
            assert await asyncio.to_thread(waiting.process.wait, 60) == 1
    assert "mine: cancelled" in waiting.output
