"""The list of jobs that is kept between readings equals a reading of all of them, whatever happened in between."""

import random

import pytest

from pipelines.broker import Broker
from pipelines.job_index import JobIndex
from pipelines.job_records import all_manifests, job_key
from pipelines.topology import ensure_topology
from schemas.jobs import JobRef, Manifest
from schemas.settings import Settings


def manifest(job: str, tenant: str, frames: int) -> Manifest:
    return Manifest(job=JobRef(id=job, tenant=tenant, pipeline="p", revision="r"), name=f"{job}.mp4", frames=frames)


async def put(broker: Broker, known: Manifest) -> None:
    key = job_key(known.job.tenant, known.job.id)
    await broker.put(broker.names.jobs, key, known.model_dump_json().encode())


async def equal(index: JobIndex, broker: Broker) -> None:
    for tenant in ("main", "other"):
        known = sorted(await index.jobs(tenant), key=lambda each: each.job.id)
        assert known == sorted(await all_manifests(broker, tenant), key=lambda each: each.job.id)


@pytest.mark.parametrize("seed", range(3))
async def test_it_is_what_the_bucket_holds_after_any_changes(settings: Settings, seed: int) -> None:
    drawn = random.Random(seed)
    async with Broker.connected(settings, "test") as broker:
        index = JobIndex(broker)
        assert await index.jobs("main") == []  # before there is a bucket
        await ensure_topology(broker, settings, [])
        bucket = broker.names.jobs
        for step in range(60):
            job, tenant = f"job-{drawn.randrange(12)}", drawn.choice(("main", "main", "other"))
            match drawn.randrange(8):
                case 0:
                    await broker.delete_key(bucket, job_key(tenant, job))
                case 1:
                    await broker.put(bucket, job_key(tenant, job), b"no manifest")
                case 2:
                    await broker.put(bucket, f"cancelled.{tenant}.{job}", b"1")  # another kind of entry
                case 3:  # as entries that are too old
                    info = await broker.api(f"STREAM.INFO.KV_{bucket}")
                    await broker.purge(f"KV_{bucket}", ">", max(0, info["state"]["last_seq"] - drawn.randrange(20)))
                case _:
                    await put(broker, manifest(job, tenant, step))
            if drawn.randrange(3) == 0:
                await equal(index, broker)
        await equal(index, broker)


async def test_its_version_changes_with_the_jobs_of_the_tenant_alone(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        index = JobIndex(broker)
        seen = [await index.version("main")]
        await put(broker, manifest("a", "main", 1))
        seen.append(await index.version("main"))
        await put(broker, manifest("a", "other", 1))
        assert await index.version("main") == seen[-1]
        await put(broker, manifest("a", "main", 2))
        seen.append(await index.version("main"))
        await broker.delete_key(broker.names.jobs, "main.a")
        seen.append(await index.version("main"))
        assert len(set(seen[:3])) == 3
        assert seen[3] != seen[2]


async def test_a_bucket_that_is_made_anew_is_read_anew(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        index = JobIndex(broker)
        for job in ("a", "b"):
            await put(broker, manifest(job, "main", 1))
        assert len(await index.jobs("main")) == 2
        await broker.api(f"STREAM.DELETE.KV_{broker.names.jobs}")
        assert await index.jobs("main") == []
        await ensure_topology(broker, settings, [])
        await put(broker, manifest("c", "main", 1))
        await equal(index, broker)
