"""What the broker knows of jobs is in a bucket of each tenant: the jobs of one make none of another forgotten."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cli.app import answer
from pipelines.accounts import write_list
from pipelines.broker import Broker
from pipelines.cancelled import Cancelled, cancelled_key, drop_queued
from pipelines.job_index import JobIndex
from pipelines.job_records import JobRecord, find_manifest, job_key
from pipelines.jobs import begin
from pipelines.roles import configuration
from pipelines.tenant_admin import remove_tenant, set_tenants
from pipelines.tenants import follow_tenants, list_number, store_tenants
from pipelines.topology import apply_topology, ensure_topology
from schemas.jobs import JobRef, JobState, Manifest
from schemas.settings import Settings
from schemas.tenants import Tenant, TenantList, TenantsFile
from tests.guarded import Guarded
from tests.integration.queues import eventually

ALL = ("main", "acme", "evil")


def manifest(tenant: str, job: str = "film", **fields: Any) -> Manifest:
    return Manifest(job=JobRef(id=job, tenant=tenant, pipeline="p", revision="r"), name="film.mp4", **fields)


async def written(broker: Broker, known: Manifest) -> None:
    assert await JobRecord(broker, known).write(known)


async def fleet_of(broker: Broker, settings: Settings, *tenants: str) -> None:
    await ensure_topology(broker, settings, [])
    await set_tenants(broker, settings, dict.fromkeys(tenants, Tenant()))


async def test_jobs_of_a_tenant_make_room_for_each_other_and_for_no_other(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await fleet_of(broker, settings, "acme", "evil")
        for tenant in ALL:
            await written(broker, manifest(tenant))
            await drop_queued(broker, manifest(tenant).job)
        bucket = broker.names.jobs_of("evil")
        for number in range(70):  # as long as many thousands of them
            await broker.put(bucket, job_key("evil", f"job-{number}"), bytes(1_000_000))
        for tenant, kept in (("main", True), ("acme", True), ("evil", False)):
            assert (await find_manifest(broker, "film", tenant) is not None) is kept
            mark = await broker.get(broker.names.jobs_of(tenant), cancelled_key(manifest(tenant).job))
            assert (mark is not None) is kept


async def test_jobs_of_all_tenants_are_listed_of_each_alone(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        index = JobIndex(broker)
        await ensure_topology(broker, settings, [])
        await written(broker, manifest("acme", state=JobState.DONE))  # not listed yet
        assert [each.job.id for each in await index.jobs("acme")] == ["film"]
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        for tenant, job in (("main", "of-main"), ("acme", "of-acme"), ("evil", "of-evil")):
            await written(broker, manifest(tenant, job))
        found = {tenant: sorted(each.job.id for each in await index.jobs(tenant)) for tenant in ALL}
        assert found == {"main": ["of-main"], "acme": ["film", "of-acme"], "evil": ["of-evil"]}
        versions = [await index.version(tenant) for tenant in ALL]
        await written(broker, manifest("evil", "another"))
        assert [await index.version(tenant) for tenant in ALL][:2] == versions[:2]
        assert await index.version("evil") != versions[2]


async def follow_cancelled(cancelled: Cancelled) -> None:
    async with aclosing(cancelled.follow()) as following:
        async for _ in following:
            pass


async def test_workers_follow_what_each_tenant_cancels(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cancelled.LOOK_S", 0.05)
    async with Broker.connected(settings, "test") as broker, Broker.connected(settings, "worker") as worker:
        await fleet_of(broker, settings, "acme")
        worker.take_tenants(TenantList(tenants=broker.tenants, own_jobs=True))
        cancelled = Cancelled(worker)
        following = asyncio.create_task(follow_cancelled(cancelled))
        for tenant in ("main", "acme"):
            await drop_queued(broker, manifest(tenant).job)
            await eventually(lambda tenant=tenant: cancelled.has(manifest(tenant).job))  # type: ignore[misc]
        assert not cancelled.has(manifest("acme", "other").job)
        later = manifest("acme").job.model_copy(update={"generation": 1})
        assert not cancelled.has(later), "it was begun anew"
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        worker.take_tenants(TenantList(tenants=broker.tenants, own_jobs=True))
        await drop_queued(broker, manifest("evil").job)
        await eventually(lambda: cancelled.has(manifest("evil").job))
        await remove_tenant(broker, settings, "acme")
        worker.take_tenants(TenantList(tenants=broker.tenants, own_jobs=True))
        await eventually(lambda: broker.names.jobs_of("evil") in cancelled._generations)
        await eventually(lambda: len(cancelled._generations) == 2)
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        worker.take_tenants(TenantList(tenants=broker.tenants, own_jobs=True))
        assert not cancelled.has(manifest("acme").job), "a tenant of the same name, whose jobs begin at generation 0"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def follow_changes(broker: Broker) -> None:
    async with aclosing(follow_tenants(broker)) as following:
        async for _ in following:
            pass


async def test_a_tenant_whose_permissions_the_broker_reads_later_ends_no_worker(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.cancelled.LOOK_S", 0.05)
    for_operator, for_worker = (Settings.model_validate(guarded.settings(role)) for role in ("operator", "worker"))
    async with Broker.connected(for_operator, "operator") as broker, Broker.connected(for_worker, "worker") as worker:
        await ensure_topology(broker, for_operator, [])
        cancelled = Cancelled(worker)
        following = asyncio.create_task(follow_cancelled(cancelled))
        await set_tenants(broker, for_operator, {"later": Tenant()})
        worker.take_tenants(TenantList(tenants=broker.tenants, own_jobs=True))
        await eventually(lambda: "the bucket rigflow_jobs_later cannot be read" in caplog.text)
        await drop_queued(broker, manifest("main").job)
        await eventually(lambda: cancelled.has(manifest("main").job))
        (guarded.log.parent / "roles.conf").write_text(configuration(worker.names, "main"))
        os.kill(int((guarded.log.parent / "pid").read_text()), signal.SIGHUP)
        await drop_queued(broker, manifest("later").job)
        await eventually(lambda: cancelled.has(manifest("later").job))
        assert not following.done()
        assert caplog.text.count("the bucket rigflow_jobs_later cannot be read") == 1
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_removal_before_the_upgrade_leaves_the_others_the_shared_bucket(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.toml"
    both = {"acme": Tenant(users=("U" + "A" * 55,)), "evil": Tenant()}
    write_list(file, TenantsFile(tenant=both))
    async with Broker.connected(settings, "operator") as broker:
        await before_the_upgrade(broker, settings, both)
    words = ["tenants", "remove", "evil", "--file", str(file), "--nats", settings.nats]
    assert await asyncio.to_thread(answer, words) == 0
    accounts = (tmp_path / "accounts.conf").read_text()
    assert "KV_rigflow_jobs.$KV.rigflow_jobs.acme.*" in accounts
    assert "rigflow_jobs_acme" not in accounts


async def before_the_upgrade(
    broker: Broker, settings: Settings, tenants: Mapping[str, Tenant] = MappingProxyType({"acme": Tenant()})
) -> None:
    """A fleet whose tenants share a bucket of jobs, as an earlier version stored their list."""
    await ensure_topology(broker, settings, [])
    listed = TenantList(tenants=tenants)
    broker.take_tenants(listed)
    await apply_topology(broker, settings, [])
    await store_tenants(broker, listed, 0)


async def test_until_the_operator_s_next_change_the_tenants_of_before_share_a_bucket(settings: Settings) -> None:
    """So that workers, gateways and publishers of both versions see the same jobs while they are replaced."""
    async with Broker.connected(settings, "operator") as broker:
        await before_the_upgrade(broker, settings)
        await written(broker, manifest("acme", state=JobState.PUBLISHING))
        await written(broker, manifest("main"))
        await drop_queued(broker, manifest("acme", "dropped").job)
        await broker.put(broker.names.jobs, "upload.acme.begun", b"upload")
        async with Broker.connected(settings, "worker") as worker:
            assert worker.names.jobs_of("acme") == worker.names.jobs == "rigflow_jobs"
            assert await apply_topology(worker, settings, []) == []
            held = await JobRecord.read(worker, manifest("acme").job)
            assert held is not None
            following = asyncio.create_task(follow_changes(worker))
            await set_tenants(broker, settings, {"acme": Tenant()})
            assert set(await broker.items("rigflow_jobs")) == {"main.film"}
            own = await broker.items("rigflow_jobs_acme")
            assert own.keys() == {"acme.film", "cancelled.acme.dropped", "upload.acme.begun"}
            await eventually(lambda: worker.names.jobs_of("acme") == "rigflow_jobs_acme")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await held.change(state=JobState.PUBLISHED)  # it was read in the shared bucket
        known = await find_manifest(broker, "film", "acme")
        assert known is not None
        assert known.state is JobState.PUBLISHED
        new = (await begin(broker, manifest("acme", "dropped"))).manifest.job
        assert new.generation == 1, "workers drop the one before"


@pytest.mark.parametrize("where", ["shared", "own"])
async def test_what_is_written_while_jobs_are_moved_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async with Broker.connected(settings, "operator") as broker, Broker.connected(settings, "worker") as worker:
        await before_the_upgrade(broker, settings)
        await written(broker, manifest("acme"))
        await written(broker, manifest("acme", "gone"))

        async def meanwhile(operator: Broker, listed: TenantList, number: int) -> None:
            worker.take_tenants(listed.model_copy(update={"own_jobs": where == "own"}))
            record = await JobRecord.read(worker, manifest("acme").job)
            assert record is not None
            await record.change(frames=7)
            if where == "shared":
                await written(worker, manifest("acme", "late"))
                await worker.delete_key("rigflow_jobs", "acme.gone")
            await store_tenants(operator, listed, number)

        monkeypatch.setattr("pipelines.tenant_admin.store_tenants", meanwhile)
        assert await list_number(broker)
        await set_tenants(broker, settings, {"acme": Tenant()})
        known = await find_manifest(broker, "film", "acme")
        assert known is not None
        assert known.frames == 7
        assert (await find_manifest(broker, "late", "acme") is not None) is (where == "shared")
        assert (await find_manifest(broker, "gone", "acme") is None) is (where == "shared")
        assert await broker.items("rigflow_jobs") == {}
