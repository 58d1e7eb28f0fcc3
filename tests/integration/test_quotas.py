"""Limits of tenants, on a real broker: what is over one is refused in words, or waits, and others do not notice."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines.media.tensor import TensorMedium
from gateway.problems import problem_of
from pipelines import asking
from pipelines.asking import Asker
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.dead import dead_letter, letters
from pipelines.delivery import Delivery
from pipelines.jetstream import ApiError
from pipelines.job import Job
from pipelines.job_events import Ended
from pipelines.job_records import JobRecord
from pipelines.jobs import cancel, finish_cancel
from pipelines.known_revisions import KnownRevisions
from pipelines.quotas import DAY_S, QuotaReached, StorageFull, TenantFull
from pipelines.refusal import source_of
from pipelines.registry import builtin_pipeline
from pipelines.tenant_admin import set_tenants, state_of
from pipelines.usage import record_usage
from schemas.jobs import JobRef, JobState, Key, Manifest, Priority
from schemas.messages import decode
from schemas.parts import PartHeader
from schemas.results import Failure
from schemas.settings import Settings
from schemas.subjects import HEADER_COMPUTED, HEADER_ID, HEADER_JOB, HEADER_PART, HEADER_TYPE, SPLIT
from schemas.tenants import Tenant
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.integration.queues import eventually
from workers.definitions import find_models, register
from workers.failures import Failures
from workers.in_flight import InFlight, Queue, State
from workers.io_intake import IoIntake, open_pull
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


async def test_a_cancelled_job_counts_with_the_parts_that_were_there(settings: Settings) -> None:
    """Once, also where another process finishes the cancelling: its results are deleted by then."""
    async with tenants_of(settings, {"small": Tenant(device_s_a_day=10.0)}) as broker:
        ref = JobRef(id="film", tenant="small", pipeline=SPEC.name, revision="r")
        record = JobRecord(broker, Manifest(job=ref, name="film", created_s=time.time()))
        assert await record.write(record.manifest)
        for part, seconds in enumerate(("4.5", "3.25", "-9.0", "nan", "")):
            header = PartHeader(0, 0, part, last=False, final=False, frames=1, lost=0).header()
            headers = {HEADER_TYPE: "part", HEADER_PART: header, HEADER_COMPUTED: seconds}
            await broker.publish(broker.names.results(ref), b"", f"part-{part}", headers)
        await cancel(broker, record.manifest)
        await finish_cancel(broker, ref, again=True)
        assert (await state_of(broker, ["small"]))["small"].used_s == 7.75


async def test_a_request_whose_caller_went_away_counts_with_the_parts_that_were_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.quotas.LOOK_S", 0.0)
    async with tenants_of(settings, {"small": Tenant(device_s_a_day=10.0)}) as broker:
        infer = builtin_pipeline("infer").with_model("fingerprint")
        spec = await register(broker, settings, infer, find_models(infer, None), variant=True)
        arrays = {"pixels": np.zeros((2, 5, 32, 32), np.uint8)}
        segments, asker = list(TensorMedium(spec.decode).segments_of("a", arrays)), Asker(broker)
        monkeypatch.setattr(asking._Waiting, "open", _begun)  # it hears nothing
        asked = asyncio.create_task(asker.ask(spec, segments, "small"))
        queue = broker.names.work_stream(spec.name, spec.decode.name)

        async def job() -> JobRef | None:
            queued = [decode(stored.body)[0] async for stored in broker.read(queue)]
            return queued[0].key.job if queued else None

        await eventually(job)
        ref = await job()
        assert ref is not None
        header = PartHeader(0, 0, 0, last=False, final=False, frames=1, lost=0).header()
        headers = {HEADER_TYPE: "part", HEADER_PART: header, HEADER_COMPUTED: "4.5"}
        await broker.publish(broker.names.results(ref), b"", "part", headers)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asker.close()
        assert (await state_of(broker, ["small"]))["small"].used_s == 4.5
        assert [each async for each in broker.read(broker.names.results_of("small"))] == []


async def test_no_media_of_a_tenant_are_fetched_until_it_may_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.io_intake.AGAIN_S", 0.01)
    tenants = {"small": Tenant(device_s_a_day=1.0), "other": Tenant()}
    async with tenants_of(settings, tenants) as broker:
        await use(broker, "small", "job", 2.0)
        taken: list[str] = []

        async def accept(queue: Queue, delivery: Delivery) -> None:
            taken.append(queue.tenant)
            await delivery.ack()

        intake = IoIntake(broker, settings)
        await intake.host(SPEC, SPLIT, accept, 1)
        intake.withhold("small")
        pulls = {queue.tenant: each.pull for queue, each in intake._pulls.items()}
        assert (pulls["small"].outstanding, pulls["other"].outstanding) == (0, 1)
        await asyncio.sleep(0)
        await broker.connection.flush()  # the request from before is withdrawn at the server
        for name in ("small", "other"):
            await broker.publish(broker.names.media(name, SPEC.name), b"media", name)
        await eventually(lambda: taken == ["other"])
        assert pulls["small"].outstanding == 0
        await set_tenants(broker, settings, tenants | {"small": Tenant(device_s_a_day=9.0)})
        await eventually(lambda: taken == ["other", "small"])
        await intake.close()


@pytest.mark.parametrize(("ended_s", "generation"), [(1.0, 1), (4e9, 0)])
async def test_media_that_waited_begin_a_job_again_that_had_failed_before(
    settings: Settings, ended_s: float, generation: int
) -> None:
    """They come with more than one delivery; those of which the job failed since do not begin it again."""
    async with tenants_of(settings, {"small": Tenant()}) as broker:
        revision = (await KnownRevisions(broker).newest(SPEC.name)).revision
        ref = JobRef(id="film", tenant="small", pipeline=SPEC.name, revision=revision)
        source = source_of(b"media")
        known = Manifest(job=ref, name="film", source=source, hosted=True, state=JobState.FAILED, created_s=time.time())
        await JobRecord(broker, known).write(known.model_copy(update={"ended_s": ended_s, "total": 1}))
        key = Key(job=ref, segment=-1, final=True)
        failure = Failure(key=key, stage=SPLIT, entire_segment=True, error="no", worker="w", deliveries=1)
        await broker.publish(broker.names.results(ref), failure.encode(), "failure", {HEADER_TYPE: "failure"})
        media = broker.names.media("small", SPEC.name)
        await broker.publish(media, b"media", "media", {HEADER_JOB: "film"})
        taken: list[Delivery] = []

        async def accept(_: Queue, delivery: Delivery) -> None:
            taken.append(delivery)
            if len(taken) == 1:
                await delivery.release()

        queue = Queue(SPEC.name, SPLIT, Priority.INTERACTIVE, "small")
        pull = await open_pull(broker, queue, broker.names.media_stream(SPEC.name, "small"), accept)
        pull.request(2)
        await eventually(lambda: len(taken) == 2)
        failures = Failures(broker, Attempts(broker, "worker", "host", "cpu"), "worker")
        splitting = SplitHandler(broker, failures, _begun, lambda _: None)
        _, record = await splitting._job_of(InFlight(taken[1], queue, lambda _: None), b"media")
        assert (taken[1].deliveries, record.manifest.job.generation) == (2, generation)
        await pull.close()


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
        withheld: list[str] = []
        await SplitHandler(broker, failures, _begun, withheld.append).run(taken[0])
        assert withheld == ["small"]
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


async def test_what_a_tenant_stores_slowly_is_stored(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it fills most of the tenant's storage: its own bytes there are no reason to begin again."""
    monkeypatch.setattr("pipelines.broker.FULL_S", 0.001)
    async with tenants_of(settings, {"slow": Tenant(storage_bytes=32 << 20)}) as broker:
        subject = broker.names.results(JobRef(id="film", tenant="slow", pipeline=SPEC.name, revision="r"))
        async with asyncio.timeout(60):
            await broker.publish_soon(subject, bytes(20 << 20), "large")
        state = (await broker.api(f"STREAM.INFO.OBJ_{broker.names.blobs_of('slow')}"))["state"]
        assert state["bytes"] > 20 << 20
        assert (await broker.api(f"STREAM.INFO.{broker.names.results_of('slow')}"))["state"]["messages"] == 1


async def test_a_dead_letter_waits_for_no_room_in_a_full_storage(settings: Settings) -> None:
    """It is without its input then, and says so."""
    async with tenants_of(settings, {"full": Tenant(storage_bytes=16 << 20)}) as broker:
        chunks = f"$O.{broker.names.blobs_of('full')}.C.unfinished"
        with suppress(ApiError):
            for _ in range(16):
                await broker.store(chunks, bytes(1_000_000), {}, until_full=True)
        ref = JobRef(id="film", tenant="full", pipeline=SPEC.name, revision="r")
        failure = Failure(key=Key(job=ref, segment=0), stage="decode", entire_segment=True, error="bad")
        subject = broker.names.work(SPEC.name, "decode", Priority.BULK, "full")
        async with asyncio.timeout(60):
            await dead_letter(broker, failure, bytes(broker.max_body + 1), subject, 1, {})
        [letter] = [letter async for letter in letters(broker, tenant="full")]
        assert (letter.nbytes, letter.queue) == (0, subject)
        [result] = [stored async for stored in broker.read(broker.names.results_of("full"))]
        told, _ = decode(result.body)
        assert isinstance(told, Failure)
        for each in (told, letter.failure):
            assert each.error.startswith("bad; its input is not kept: unfinished jobs of tenant full fill all")


@pytest.mark.parametrize("deliveries", [1, 3, 50])
async def test_work_for_a_full_storage_is_done_again_ever_later(settings: Settings, deliveries: int) -> None:
    """All of it would be in vain."""
    marked = list[float]()

    async def mark_for_retry(pause_s: float) -> None:
        marked.append(pause_s)

    delivery = SimpleNamespace(deliveries=deliveries)
    message = SimpleNamespace(is_copy=False, useless=False, delivery=delivery, mark_for_retry=mark_for_retry)
    broker = SimpleNamespace(settings=settings)
    assert await Failures(broker, None, "w").retry(message, StorageFull("full"), 0.5)  # type: ignore[arg-type]
    assert marked == [min(30.0, 0.5 * 2**deliveries)]


async def ended(job: Job) -> None:
    """Wait for the end of a job, which is a good one."""
    async with aclosing(job.events()) as events:
        async for event in events:
            if isinstance(event, Ended):
                assert not event.done.failures


async def _begun(_: object) -> None: ...
