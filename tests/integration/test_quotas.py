"""Limits of tenants, on a real broker: what is over one is refused in words, or waits, and others do not notice."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import pytest

from gateway.problems import problem_of
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.jetstream import ApiError
from pipelines.job import Job
from pipelines.job_events import Ended
from pipelines.quotas import DAY_S, QuotaReached, TenantFull
from pipelines.registry import builtin_pipeline
from pipelines.tenant_admin import set_tenants, state_of
from pipelines.usage import record_usage
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.settings import Settings
from schemas.subjects import HEADER_ID, SPLIT
from schemas.tenants import Tenant
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.integration.queues import eventually
from workers.definitions import find_models, register
from workers.failures import Failures
from workers.in_flight import InFlight, Queue, State
from workers.io_intake import open_pull
from workers.split import SplitHandler

SPEC = builtin_pipeline("fingerprint")


@asynccontextmanager
async def tenants_of(settings: Settings, tenants: Mapping[str, Tenant]) -> AsyncIterator[Broker]:
    """A fleet without workers that has these tenants."""
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, SPEC, find_models(SPEC, None))
        await set_tenants(broker, settings, tenants)
        yield broker


async def use(broker: Broker, tenant: str, job: str, seconds: float) -> None:
    """Record the end of a job that took so many seconds of devices."""
    ref = JobRef(id=job, tenant=tenant, pipeline=SPEC.name, revision="r")
    now_s = time.time()
    ended = Manifest(job=ref, name=job, state=JobState.DONE, computed_s=seconds, created_s=now_s, ended_s=now_s)
    await record_usage(broker, ended)


async def test_a_tenant_that_has_used_its_day_learns_when_it_may_send_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.quotas.LOOK_S", 0.0)
    async with tenants_of(settings, {"small": Tenant(device_s_a_day=10.0), "free": Tenant()}) as broker:
        for number in range(2):
            await use(broker, "small", f"job-{number}", 4.0)
        await use(broker, "free", "job", 1000.0)
        assert await Client(broker, "small").submit(SPEC.name, b"media", job="fits")
        await use(broker, "small", "job-1", 7.0)  # it ended again after a retry: it counts once
        with pytest.raises(QuotaReached, match=r"has used 11 s of devices today, and may use 10 s.* in .* min") as over:
            await Client(broker, "small").submit(SPEC.name, b"media", job="over")
        assert 0 < over.value.again_s <= DAY_S
        problem, headers = problem_of(over.value)
        assert problem.status == HTTPStatus.TOO_MANY_REQUESTS
        assert 0 < int(headers["Retry-After"]) <= DAY_S
        for tenant in ("free", "main"):
            assert await Client(broker, tenant).submit(SPEC.name, b"media", job="others")
        assert (await state_of(broker, ["small"]))["small"].used_s == 11.0
        await set_tenants(broker, settings, {"small": Tenant(device_s_a_day=20.0), "free": Tenant()})
        assert await Client(broker, "small").submit(SPEC.name, b"media", job="over")


async def test_a_tenant_whose_queue_is_full_learns_its_limit_and_others_go_on(settings: Settings) -> None:
    async with tenants_of(settings, {"small": Tenant(jobs=2), "other": Tenant(jobs=2)}) as broker:
        for number in range(2):
            await Client(broker, "small").submit(SPEC.name, b"media", job=f"job-{number}", patience_s=0.0)
        with pytest.raises(TenantFull, match="tenant small has as much waiting in this pipeline as it may, 2 media or"):
            await Client(broker, "small").submit(SPEC.name, b"media", job="over", patience_s=0.0)
        assert await Client(broker, "other").submit(SPEC.name, b"media", job="others", patience_s=0.0)
        assert (await state_of(broker, ["small"]))["small"].media == 2


async def test_media_of_a_tenant_that_has_used_its_day_wait_in_its_queue(settings: Settings, tmp_path: Path) -> None:
    """Those that a program sent: the worker that takes one puts it back, and splits those of others."""
    async with tenants_of(settings, {"small": Tenant(device_s_a_day=1.0)}) as broker:
        await use(broker, "small", "job", 2.0)
        subject = broker.names.media("small", SPEC.name)
        await broker.publish(subject, b"media", "media")
        taken: list[InFlight] = []

        async def accept(queue: Queue, delivery: object) -> None:
            taken.append(InFlight(delivery, queue, lambda _: None))  # type: ignore[arg-type]

        queue = Queue(SPEC.name, SPLIT, Priority.INTERACTIVE, "small")
        pull = await open_pull(broker, queue, broker.names.media_stream(SPEC.name, "small"), accept)
        pull.request(1)
        await eventually(lambda: bool(taken))
        failures = Failures(broker, Attempts(broker, "worker", "host", "cpu"), "worker")
        await SplitHandler(broker, failures, _begun).run(taken[0])
        assert taken[0].state is State.RETRIED
        waiting = (await broker.api(f"STREAM.INFO.{broker.names.media_stream(SPEC.name, 'small')}"))["state"]
        assert waiting["messages"] == 1
        await asyncio.gather(pull.close())


def test_a_tenant_whose_storage_is_full_keeps_no_worker_from_others(tmp_path: Path) -> None:
    """Its own work waits, and is done once there is room."""
    clip = real_clip("bikes").read_bytes()

    async def jobs(fleet: Fleet) -> None:
        tenants = {"full": Tenant(storage_bytes=16 << 20), "other": Tenant()}
        async with tenants_of(fleet.settings, tenants) as broker:
            for number in range(5):  # parts of a job that nobody finishes
                subject = f"rigflow.results.full.{SPEC.name}.endless"
                with suppress(ApiError):
                    await broker.store(subject, bytes(4_000_000), {HEADER_ID: f"{number}"}, until_full=True)
            while True:  # to the last byte
                with suppress(ApiError):
                    await broker.store(subject, bytes(1000), {}, until_full=True)
                    continue
                break
            fleet.add(*ONE_WORKER)
            waiting = await Client(broker, "full").submit(SPEC.name, clip, job="film")
            async with asyncio.timeout(60):
                await ended(await Client(broker, "other").submit(SPEC.name, clip, job="film"))
            assert not waiting.manifest.state.ended
            await broker.purge(broker.names.results_of("full"), subject)
            async with asyncio.timeout(60):
                await ended(waiting)

    with Fleet((), tmp_path / "cache") as fleet:
        asyncio.run(jobs(fleet))


async def ended(job: Job) -> None:
    """Wait for the end of a job, which is a good one."""
    async with aclosing(job.events()) as events:
        async for event in events:
            if isinstance(event, Ended):
                assert not event.done.failures


async def _begun(_: object) -> None: ...
