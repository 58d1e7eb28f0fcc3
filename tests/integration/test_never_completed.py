"""A collector ends its jobs in words when nothing can complete them any more, and never waits for ever."""

import asyncio
from pathlib import Path

import pytest

from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.inventory import take_inventory
from pipelines.jetstream import Gone
from pipelines.job_records import JobCancelled, JobRecord, find_manifest
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobRef, JobState, Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import HEADER_JOB
from tests.clips import Clip, generated, make_clip
from tests.fleet import Fleet
from workers.definitions import find_models, register


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.collect.LOST_S", 1.0)


async def registered(broker: Broker, settings: Settings) -> PipelineSpec:
    spec = builtin_pipeline("fingerprint")
    return await register(broker, settings, spec, find_models(spec, None))


@pytest.mark.parametrize("what", ["begun again", "begun again while the pipeline works", "without a manifest"])
async def test_a_job_that_ended_while_its_collector_heard_nothing(
    what: str, settings: Settings, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path, Clip())
    async with Broker.connected(settings, "test") as broker:
        spec = await registered(broker, settings)
        publisher = Publisher(broker, spec, "main", Priority.BULK)
        job = publisher.ref("mine")
        await publisher.publish(job, "video", [Input(clip, clip.name)])
        if "works" not in what:
            await broker.purge(broker.names.work_stream(spec.name, "decode"), ">")
        record = await JobRecord.read(broker, job)
        assert record is not None
        if "begun again" in what:  # and what the earlier generation left is deleted
            again = job.model_copy(update={"generation": 1})
            assert await record.write(record.manifest.model_copy(update={"job": again}))
        else:
            await broker.purge(f"KV_{broker.names.jobs}", ">")
        collector = Collector(broker, spec)
        await collector.open({job: tmp_path / "out"})
        async with asyncio.timeout(60):
            with pytest.raises(JobCancelled if "begun again" in what else Gone):
                await collector.wait(job.id)
        await collector.close()


async def until(broker: Broker, job: JobRef, state: JobState) -> None:
    async with asyncio.timeout(60):
        while (known := await find_manifest(broker, job.id)) is None or known.state is not state:
            await asyncio.sleep(0.05)


async def test_raw_media_whose_segments_were_deleted_ends_with_a_failure(tmp_path: Path) -> None:
    with Fleet((("split",),), tmp_path / "cache", max_deliver=1) as fleet:
        async with Broker.connected(fleet.settings, "test") as broker:
            spec = await registered(broker, fleet.settings)
            job = Publisher(broker, spec, "main", Priority.INTERACTIVE).ref("raw")
            subject = broker.names.media("main", spec.name, Priority.INTERACTIVE)
            await broker.publish(subject, generated(Clip()).read_bytes(), "1", {HEADER_JOB: "raw"})
            await until(broker, job, JobState.PUBLISHED)
            await broker.purge(broker.names.work_stream(spec.name, "decode"), ">")
            fleet.add(("collect",))
            await until(broker, job, JobState.FAILED)
            manifest = await find_manifest(broker, "raw")
            assert manifest is not None
            done = (await take_inventory(broker, manifest)).done
            assert done is not None
            assert "the broker lost messages of job raw" in done.failures[0]
