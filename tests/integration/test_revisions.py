"""Revisions of pipelines that options of jobs made: deleted when nothing needs them, and never under a job."""

import time

import pytest

from pipelines import revisions
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.dead import dead_letter
from pipelines.job_records import JobRecord, find_manifest
from pipelines.registry import load_pipeline, put_revision, withdraw_pipeline
from pipelines.resumable import Uploads
from pipelines.revisions import is_kept, keep, sweep_revisions
from pipelines.sweep import sweep
from schemas.jobs import JobState, Key, Priority
from schemas.pipeline import PipelineSpec
from schemas.results import Failure
from schemas.settings import Settings
from tests.integration.queues import a_fleet


async def _made(broker: Broker, known: PipelineSpec, number: int) -> PipelineSpec:
    spec = known.with_fields({"decode.fps": number + 0.5})
    await put_revision(broker, spec, variant=True)
    return spec


async def _there(broker: Broker) -> set[str]:
    return {key.removeprefix("revision.") for key in await broker.items(broker.names.pipelines, "revision.*")}


async def test_what_no_job_needs_is_deleted_and_nothing_else(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, publisher):
        known = publisher.spec
        await put_revision(broker, known)
        made = [await _made(broker, known, number) for number in range(8)]
        goes_on, failed, done, other_tenant, uploading, dead, _unused, last = made
        for spec, job, state, tenant in (
            (goes_on, "goes-on", JobState.PUBLISHING, ""),
            (failed, "failed", JobState.FAILED, ""),
            (done, "done", JobState.DONE, ""),
            (other_tenant, "other", JobState.PUBLISHED, "studio"),
        ):
            client = Client(broker, tenant)
            await client.submit(spec, b"media", job=job)
            manifest = await find_manifest(broker, job, client.tenant)
            assert manifest is not None
            await JobRecord(broker, manifest).refresh()
            record = await JobRecord.read(broker, manifest.job)
            assert record is not None
            assert await record.write(manifest.model_copy(update={"state": state, "ended_s": time.time()}))
        await Uploads(Client(broker)).create(uploading.revision, True, 10, "up", Priority.BULK, "", "", 5.0)
        job = publisher.ref("gone").model_copy(update={"revision": dead.revision})
        failure = Failure(key=Key(job=job, segment=0), stage="decode", error="x", worker="w")
        await dead_letter(broker, failure, b"input", broker.names.work("p", "decode", Priority.BULK), 1, {})

        assert await sweep_revisions(broker, time.time() - 3600) == 0, "all of it is young"
        assert (await sweep(broker, age_s=0.0)).revisions == 0, "the role of a worker may not"
        swept = await sweep(broker, age_s=0.0, entire=True)
        assert await _there(broker) == {
            each.revision for each in (known, goes_on, failed, other_tenant, uploading, dead, last)
        }
        assert swept.revisions == 2
        assert (await load_pipeline(broker, known.name)).revision == known.revision
        left = await withdraw_pipeline(broker, known.name)
        assert set(left) == {goes_on.revision, other_tenant.revision, uploading.revision}


async def test_a_revision_that_is_used_is_written_again_and_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        known = publisher.spec
        await put_revision(broker, known)
        one, two = [await _made(broker, known, number) for number in range(2)]
        assert await is_kept(broker, one.revision)
        before = time.time()
        bucket = broker.names.pipelines
        entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.revision.{one.revision}")
        assert entry is not None
        with monkeypatch.context() as patch:
            patch.setattr(revisions, "FRESH_S", 0.0)
            await keep(broker, one)
        assert not await broker.delete_key(bucket, f"revision.{one.revision}", entry.sequence), "it was written again"
        assert await sweep_revisions(broker, before) == 0
        assert two.revision in await _there(broker), "it was published last, and its pipeline's queues are found by it"
        assert await sweep_revisions(broker, time.time() + 60) == 1
        assert not await is_kept(broker, one.revision)
        job = await Client(broker).submit(one, b"media")
        assert (await load_pipeline(broker, job.ref.revision)).revision == one.revision
