"""A job that a worker collects is over when its files are there, not when the last of its parts is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.inventory import take_inventory
from pipelines.job import Job
from pipelines.job_records import find_manifest
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobState, Priority
from schemas.subjects import HEADER_JOB
from tests.clips import Clip, generated
from tests.fleet import Fleet
from workers.definitions import find_models, register

ALL_BUT_COLLECT = ("split", "decode", "resize", "infer", "encode")


@asynccontextmanager
async def uncollected(fleet: Fleet) -> AsyncIterator[tuple[Broker, Job]]:
    """A job of raw media whose parts are all done, on a fleet where no worker collects."""
    async with Client.connected(fleet.settings, name="test") as client:
        broker, spec = client.broker, builtin_pipeline("fingerprint")
        await register(broker, fleet.settings, spec, find_models(spec, None))
        media = generated(Clip()).read_bytes()
        await broker.publish(
            broker.names.media("main", spec.name, Priority.INTERACTIVE), media, "1", {HEADER_JOB: "raw"}
        )
        async with asyncio.timeout(60):
            while (known := await find_manifest(broker, "raw")) is None or known.total is None:
                await asyncio.sleep(0.05)
            while not (await take_inventory(broker, known)).complete:
                await asyncio.sleep(0.05)
        yield broker, await client.find("raw")


async def test_a_job_is_done_when_its_files_are_there(tmp_path: Path) -> None:
    with Fleet((ALL_BUT_COLLECT,), tmp_path / "cache") as fleet:
        async with uncollected(fleet) as (_, job):
            progress = await job.progress()
            assert progress.state is JobState.PUBLISHED
            assert progress.segments_done == progress.total
            fleet.add(("collect",))
            async with asyncio.timeout(60):
                while (progress := await job.progress()).state is JobState.PUBLISHED:
                    await asyncio.sleep(0.01)
            assert progress.state is JobState.DONE
            assert [file.name async for file in job.files()] == ["raw.fingerprint.npz"]


async def test_a_job_whose_files_are_not_there_can_be_cancelled(tmp_path: Path) -> None:
    with Fleet((ALL_BUT_COLLECT,), tmp_path / "cache") as fleet:
        async with uncollected(fleet) as (broker, job):
            assert (await job.cancel()).state is JobState.CANCELLED
            fleet.add(("collect",))
            stream = broker.names.work_stream("fingerprint", "collect")
            async with asyncio.timeout(60):
                while (await broker.api(f"STREAM.INFO.{stream}"))["state"]["messages"]:
                    await asyncio.sleep(0.05)
            assert (await job.progress()).state is JobState.CANCELLED
            assert not [file async for file in job.files()]
