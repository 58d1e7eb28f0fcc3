"""Limits of tenants at their borders: midnight, wrong clocks, several gateways, limits lowered below what is used."""

import time
from contextlib import AsyncExitStack

import pytest

from pipelines.broker import ApiError, Broker
from pipelines.client import Client
from pipelines.jobs import begin
from pipelines.quotas import DAY_S, QuotaReached, TenantFull
from pipelines.tenant_admin import set_tenants, state_of
from pipelines.usage import record_usage
from schemas.jobs import JobRef, JobState, Manifest
from schemas.settings import Settings
from schemas.subjects import HEADER_ID
from schemas.tenants import Tenant, TenantList
from tests.integration.test_quotas import SPEC, tenants_of, use

LIMITED = {"small": Tenant(device_s_a_day=10.0)}


async def begun(broker: Broker, job: str) -> Manifest:
    """A job that a worker or gateway begins now, by its clock."""
    ref = JobRef(id=job, tenant="small", pipeline=SPEC.name, revision="r")
    return (await begin(broker, Manifest(job=ref, name=job))).manifest


async def ended(broker: Broker, job: Manifest, seconds: float) -> None:
    end = {"state": JobState.DONE, "computed_s": seconds, "ended_s": time.time()}
    await record_usage(broker, job.model_copy(update=end))


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
async def test_days_are_those_of_the_broker_whatever_the_clock_of_a_rig(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """A rig whose clock is wrong counts the jobs of today, and for today; others count what it did."""
    monkeypatch.setattr("pipelines.quotas.LOOK_S", 0.0)
    async with tenants_of(settings, LIMITED) as rig, Broker.connected(settings, "gateway") as gateway:
        right = time.time
        await use(gateway, "small", "first", 4.0)
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time", lambda: right() + days * DAY_S)
            await rig.quotas.check("small")
            job = await begun(rig, "second")
            await ended(rig, job, 7.0)
            with pytest.raises(QuotaReached, match="has used 11 s") as over:
                await rig.quotas.check("small")
        assert abs(job.created_s - right()) < DAY_S / 2
        with pytest.raises(QuotaReached, match="has used 11 s") as known:
            await gateway.quotas.check("small")
        assert abs(over.value.again_s - known.value.again_s) < DAY_S / 2, "both say the same midnight"


async def test_at_midnight_a_tenant_may_send_again_and_a_job_counts_on_the_day_that_it_began(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 20_000 * DAY_S - 1.0  # the last second of a day

    monkeypatch.setattr("pipelines.quotas.LOOK_S", 0.0)
    monkeypatch.setattr(Broker, "now_s", lambda _: now_s)
    async with tenants_of(settings, LIMITED) as broker:
        short, long = await begun(broker, "short"), await begun(broker, "long")
        await ended(broker, short, 10.0)
        with pytest.raises(QuotaReached, match="after 00:00 UTC, in 1 min") as over:
            await broker.quotas.check("small")
        assert over.value.again_s == 1.0
        now_s += 1.0
        await broker.quotas.check("small")
        await ended(broker, long, 100.0)  # it began before midnight
        await broker.quotas.check("small")
        assert (await state_of(broker, ["small"]))["small"].used_s == 0.0
        await ended(broker, await begun(broker, "next"), 10.0)
        with pytest.raises(QuotaReached, match="in 24 h 0 min"):
            await broker.quotas.check("small")
        now_s -= 1.0  # the broker's clock is put back
        with pytest.raises(QuotaReached, match="has used 110 s"):
            await broker.quotas.check("small")


async def test_a_quota_that_is_lowered_below_what_was_used_counts_at_once_at_every_gateway(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.quotas.LOOK_S", 0.0)
    async with tenants_of(settings, LIMITED) as operator, AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(Broker.connected(settings, "gateway")) for _ in range(3)]
        running = await begun(gateways[0], "film")
        for number, gateway in enumerate(gateways):
            await gateway.quotas.check("small")
            await use(gateway, "small", f"job-{number}", 2.0)
        await set_tenants(operator, settings, {"small": Tenant(device_s_a_day=5.0)})
        for gateway in gateways:
            gateway.take_tenants(TenantList(tenants=operator.tenants))
            with pytest.raises(QuotaReached, match="has used 6 s of devices today, and may use 5 s"):
                await Client(gateway, "small").submit(SPEC.name, b"media", job="more")
        await ended(gateways[1], running, 3.0)  # what is under way is finished
        await set_tenants(operator, settings, {"small": Tenant()})
        assert await Client(operator, "small").submit(SPEC.name, b"media", job="more")


async def test_limits_of_a_queue_that_are_lowered_below_what_waits_lose_nothing(settings: Settings) -> None:
    async with tenants_of(settings, {"small": Tenant(), "other": Tenant()}) as broker:
        names, more = broker.names, {"small": Tenant(jobs=2, queued_bytes=1 << 20), "other": Tenant()}
        for number in range(5):
            await broker.publish(names.media("small", SPEC.name), bytes(400_000), f"media-{number}")
        assert await set_tenants(broker, settings, more) == [], "nothing is refused"
        assert (await state_of(broker, ["small"]))["small"].media == 5
        with pytest.raises(ApiError, match="maximum"):
            await broker.store(names.media("small", SPEC.name), b"media", {HEADER_ID: "over"}, until_full=True)
        with pytest.raises(TenantFull, match=r"2 media or 1\.05 MB"):
            await Client(broker, "small").submit(SPEC.name, b"media", job="over", patience_s=0.0)
        assert await Client(broker, "other").submit(SPEC.name, b"media", job="others")
