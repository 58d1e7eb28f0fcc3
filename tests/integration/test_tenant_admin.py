"""Changes of the list of tenants, at the broker: nothing else is lost, and an interrupted removal is repeated."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.app import answer
from pipelines.accounts import locked, read_tenants, write_list
from pipelines.broker import Broker
from pipelines.dead import dead_letter, drop, find_letter, input_of, letters
from pipelines.delivery import Delivery
from pipelines.job_records import JobRecord
from pipelines.old_letters import move_letters
from pipelines.registry import builtin_pipeline
from pipelines.status import fleet_status
from pipelines.sweep import sweep
from pipelines.tenant_admin import check_removable, is_known, remove_tenant, set_tenants, state_of
from pipelines.topology import apply_topology, ensure_topology, listed
from schemas.errors import NotFound, UsageError
from schemas.jobs import JobRef, Key, Manifest, Priority
from schemas.results import Failure
from schemas.settings import Settings
from schemas.subjects import SPLIT
from schemas.tenants import BrokerFiles, Tenant, TenantList, TenantsFile
from tests.integration.queues import eventually
from workers.definitions import find_models, register
from workers.in_flight import Queue
from workers.io_intake import IO_REQUESTS, IoIntake

SPEC = builtin_pipeline("fingerprint")


@asynccontextmanager
async def fleet_of(settings: Settings, *tenants: str) -> AsyncIterator[Broker]:
    """A fleet without workers that has these tenants."""
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, SPEC, find_models(SPEC, None))
        await set_tenants(broker, settings, dict.fromkeys(tenants, Tenant()))
        yield broker


async def streams(broker: Broker) -> Sequence[str]:
    return [info["config"]["name"] for info in await listed(broker, "STREAM.LIST", "streams")]


async def test_a_list_without_tenants_of_the_fleet_is_refused(settings: Settings) -> None:
    async with fleet_of(settings, "acme", "evil") as broker:
        before = await streams(broker)
        with pytest.raises(UsageError, match="the fleet has tenants that the file has not: acme, evil"):
            await set_tenants(broker, settings, {"third": Tenant()})
        assert broker.tenants.keys() == {"acme", "evil"}
        assert await streams(broker) == before


@pytest.mark.parametrize("meanwhile", [False, True])
async def test_of_two_operators_who_change_the_tenants_at_once_one_has_to_try_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    """No tenant is lost from the list, whether the other operator is done before this one begins, or meanwhile."""
    async with fleet_of(settings, "acme") as first, Broker.connected(settings, "second") as second:

        async def faster(*given: Any) -> Any:
            monkeypatch.undo()
            await set_tenants(first, settings, {"acme": Tenant(), "one": Tenant()})
            return await apply_topology(*given)

        if meanwhile:
            monkeypatch.setattr("pipelines.tenant_admin.apply_topology", faster)
        else:
            await set_tenants(first, settings, {"acme": Tenant(), "one": Tenant()})
        changed = pytest.raises(UsageError, match="another operator changes the tenants at this moment")
        with changed:
            await set_tenants(second, settings, {"acme": Tenant(), "two": Tenant()})
        async with Broker.connected(settings, "again") as again:
            await set_tenants(again, settings, {**again.tenants, "two": Tenant()})
        with changed:
            await remove_tenant(first, settings, "acme")
    async with Broker.connected(settings, "last") as last:
        assert set(last.tenants) == {"acme", "one", "two"}


async def test_a_command_waits_for_another_one_that_changes_the_operator_s_file(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.toml"
    async with fleet_of(settings):
        with locked(file):
            words = ["tenants", "add", "two", "--file", str(file), "--nats", settings.nats]
            adding = asyncio.create_task(asyncio.to_thread(answer, words))
            await asyncio.sleep(0.1)  # it may have come to the file by now, or later
            write_list(file, TenantsFile(tenant={"one": Tenant()}))
        assert await adding == 0
    assert set(read_tenants(file).tenant) == {"one", "two"}


async def test_a_removal_that_the_broker_s_configuration_refuses_changes_nothing(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tenants.toml"
    (tmp_path / "nats.conf").write_text("no configuration {")
    write_list(file, TenantsFile(broker=BrokerFiles(config="nats.conf"), tenant={"acme": Tenant()}))
    async with fleet_of(settings, "acme"):
        words = ["tenants", "remove", "acme", "--file", str(file), "--nats", settings.nats]
        assert await asyncio.to_thread(answer, words) != 0
        assert "nothing was changed" in capsys.readouterr().err
        async with Broker.connected(settings, "again") as again:
            assert set(again.tenants) == {"acme"}
    assert set(read_tenants(file).tenant) == {"acme"}


async def test_a_tenant_is_not_removed_by_a_file_that_is_not_there(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tenants.toml"
    async with fleet_of(settings, "acme"):
        words = ["tenants", "remove", "acme", "--file", str(file), "--nats", settings.nats]
        assert await asyncio.to_thread(answer, words) == 2
        assert f"{file}: no such file: name the operator's file of tenants with --file" in capsys.readouterr().err
        async with Broker.connected(settings, "again") as again:
            assert set(again.tenants) == {"acme"}
    assert not list(tmp_path.glob("*.conf"))


async def test_a_rigflow_of_another_prefix_keeps_its_streams(settings: Settings) -> None:
    other = settings.model_copy(update={"prefix": "other"})
    async with fleet_of(settings, "acme") as broker, fleet_of(other, "acme") as second:
        await second.publish(second.names.media("acme", SPEC.name), b"media", "media")
        before = [each for each in await streams(second) if "OTHER" in each.upper()]
        assert (await state_of(broker, ["acme"]))["acme"].media == 0
        await remove_tenant(broker, settings, "acme")
        assert [each for each in await streams(second) if "OTHER" in each.upper()] == before
        assert (await state_of(second, ["acme"]))["acme"].media == 1


@pytest.mark.parametrize("tenant", ["acme", "unlisted"])
@pytest.mark.parametrize("what", ["media", "job"])
async def test_before_the_first_list_the_work_of_all_but_main_is_over(
    settings: Settings, tenant: str, what: str
) -> None:
    async with fleet_of(settings) as broker:
        for each in ("main", tenant):
            if what == "media":
                await broker.publish(broker.names.media(each, SPEC.name), b"media", f"media-{each}")
            else:
                ref = JobRef(id="film", tenant=each, pipeline=SPEC.name, revision="r")
                assert await JobRecord(broker, Manifest(job=ref, name="film")).write(Manifest(job=ref, name="film"))
        with pytest.raises(UsageError, match=f"of tenant {tenant} "):
            await set_tenants(broker, settings, {"acme": Tenant()})
        assert not broker.tenants


async def test_a_worker_drops_what_it_has_of_a_tenant_that_is_removed(settings: Settings) -> None:
    async with fleet_of(settings, "acme", "evil") as broker:
        taken, dropped = asyncio.Event(), asyncio.Event()

        async def splitting(queue: Queue, _: Delivery) -> None:
            try:
                taken.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert queue.tenant == "acme"
                dropped.set()
                raise

        intake = IoIntake(broker, settings)
        await intake.host(SPEC, SPLIT, splitting, 1)
        await broker.publish(broker.names.media("acme", SPEC.name), b"media", "media")
        await taken.wait()
        await remove_tenant(broker, settings, "acme")
        await intake.leave()
        await dropped.wait()
        await intake.close()


async def test_the_bytes_of_all_tenants_count_together(settings: Settings) -> None:
    settings = settings.model_copy(update={"credit_bytes": 250_000})
    async with fleet_of(settings, "acme", "evil") as broker:
        taken: list[str] = []
        go_on = asyncio.Event()

        async def splitting(queue: Queue, delivery: Delivery) -> None:
            taken.append(queue.tenant)
            await go_on.wait()
            await delivery.ack()

        intake = IoIntake(broker, settings)
        await intake.host(SPEC, SPLIT, splitting, 64)
        for name, count, nbytes in (("acme", 3, 100_000), ("evil", 30, 10)):
            for number in range(count):
                await broker.publish(broker.names.media(name, SPEC.name), bytes(nbytes), f"{name}-{number}")
            await eventually(lambda name=name: name in taken and taken.count("acme") == 3)  # type: ignore[misc]
        evil = intake._pulls[Queue(SPEC.name, SPLIT, Priority.INTERACTIVE, "evil")].pull
        await eventually(lambda: taken.count("evil") == IO_REQUESTS and not evil.outstanding)  # those open before
        go_on.set()
        await eventually(lambda: len(taken) == 33)
        await intake.close()


async def test_a_removal_is_repeated_after_an_interruption(settings: Settings) -> None:
    async with fleet_of(settings, "acme", "evil") as broker:
        removing = asyncio.create_task(remove_tenant(broker, settings, "acme"))
        while "acme" in broker.tenants:
            await asyncio.sleep(0)
        removing.cancel()
        await asyncio.gather(removing, return_exceptions=True)
        assert await is_known(broker, "acme")
        await remove_tenant(broker, settings, "acme")
        assert not await is_known(broker, "acme")
        left = await streams(broker)
        assert {"RIGFLOW_RESULTS", "RIGFLOW_CANCEL", "RIGFLOW_RESULTS_evil"} <= set(left)
        assert not [each for each in left if each.endswith("acme")]


async def letter_of(broker: Broker, tenant: str, job: str, body: bytes = b"no media") -> None:
    """A dead letter of a tenant, as workers write them."""
    ref = JobRef(id=job, tenant=tenant, pipeline=SPEC.name, revision="r")
    failure = Failure(key=Key(job=ref, segment=0), stage=SPLIT, entire_segment=True, error="cannot be read")
    await dead_letter(broker, failure, body, broker.names.media(tenant, SPEC.name), int(job.partition("-")[2]), {})


async def test_dead_letters_of_a_tenant_are_its_own_and_fill_no_other_store(settings: Settings) -> None:
    settings = settings.model_copy(update={"dead_bytes": 1 << 20})
    async with fleet_of(settings, "acme", "evil") as broker:
        for tenant in ("acme", "main"):
            await letter_of(broker, tenant, "job-1")
        for number in range(8):
            await letter_of(broker, "evil", f"job-{number}", bytes(300_000))
        found = {each: [letter async for letter in letters(broker, tenant=each)] for each in ("acme", "evil", "main")}
        assert [len(found[each]) for each in ("acme", "main")] == [1, 1]
        assert 0 < len(found["evil"]) < 8, "the oldest of its own made room"
        assert all(letter.failure.key.job.tenant == tenant for tenant, own in found.items() for letter in own)
        assert [letter async for letter in letters(broker, "job-1", tenant="stranger")] == found["main"], "not listed"
        assert (await find_letter(broker, found["acme"][0].number, "acme")).failure.key.job.id == "job-1"
        assert (await fleet_status(broker)).dead.messages == 2 + len(found["evil"])
        await drop(broker, found["acme"][0])
        await remove_tenant(broker, settings, "evil")
        assert (await fleet_status(broker)).dead.messages == 1


async def test_dead_letters_from_before_the_list_stay_in_the_shared_stream(settings: Settings) -> None:
    async with fleet_of(settings) as broker:
        await letter_of(broker, "acme", "job-1")
        await set_tenants(broker, settings, {"acme": Tenant()})
        await letter_of(broker, "acme", "job-2")
        for tenant, job in (("acme", "job-2"), ("main", "job-1")):
            assert [letter.failure.key.job.id async for letter in letters(broker, tenant=tenant)] == [job]


async def before_the_upgrade(broker: Broker, *tenants: str) -> None:
    """Bring a fleet's dead letters into one stream, as they were when listed tenants had none of their own."""
    for tenant in tenants:
        await broker.api(f"STREAM.DELETE.{broker.names.dead_of(tenant)}")
    shared = await broker.api(f"STREAM.INFO.{broker.names.dead_stream}")
    subjects = {"subjects": [f"{broker.names.prefix}.dead.>"]}
    await broker.api(f"STREAM.UPDATE.{broker.names.dead_stream}", shared["config"] | subjects)


async def test_old_dead_letters_of_a_tenant_are_moved_into_its_own_stream_with_their_inputs(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fleet_of(settings, "acme") as broker:
        await before_the_upgrade(broker, "acme")
        large = bytes(9 << 20)
        await letter_of(broker, "acme", "job-1", large)
        assert (await sweep(broker, age_s=0.0)).blobs == 0, "before the streams are made"
        await letter_of(broker, "main", "job-0")
        assert [letter.number async for letter in letters(broker, tenant="acme")] == [1], "it sees its own"
        assert await input_of(broker, await find_letter(broker, 1, "acme")) == large
        with pytest.raises(NotFound):
            await find_letter(broker, 2, "acme")
        assert await ensure_topology(broker, settings, [SPEC]) == [], "publishers go on until then"
        in_main = [letter.stored.body async for letter in letters(broker, "job-0")]
        for _ in range(2):  # again: nothing is left to move
            assert await asyncio.to_thread(answer, ["topology", "apply", "--nats", settings.nats]) == 0
        assert (await sweep(broker, age_s=0.0)).blobs == 0
        await letter_of(broker, "acme", "job-2")
        own = [letter async for letter in letters(broker, tenant="acme")]
        assert [letter.failure.key.job.id for letter in own] == ["job-1", "job-2"]
        assert own[0].queue == broker.names.media("acme", SPEC.name)
        assert await input_of(broker, own[0]) == large
        await drop(broker, own[0])
        assert [letter.failure.key.job.id async for letter in letters(broker, tenant="acme")] == ["job-2"]
        assert [letter.stored.body async for letter in letters(broker)] == in_main
        blobs = [await broker.stream_bytes(f"OBJ_{of}") for of in (broker.names.blobs, broker.names.blobs_of("acme"))]
        assert blobs == [0, 0], "neither object is left"


async def test_an_old_dead_letter_that_its_tenant_has_no_room_for_stays_and_hinders_no_other(
    settings: Settings,
) -> None:
    async with fleet_of(settings, "acme") as broker:
        await set_tenants(broker, settings, {"acme": Tenant(storage_bytes=16 << 20)})
        await before_the_upgrade(broker, "acme")
        async with Broker.connected(settings, "before") as before:
            before.take_tenants(TenantList())  # its inputs are in the shared store
            await letter_of(before, "acme", "job-1", bytes(20 << 20))
        await letter_of(broker, "acme", "job-2")
        await apply_topology(broker, settings, [SPEC])
        assert await move_letters(broker) == 1
        for tenant, job in (("acme", "job-2"), ("main", "job-1")):
            assert [letter.failure.key.job.id async for letter in letters(broker, tenant=tenant)] == [job]


async def test_an_old_dead_letter_without_its_input_says_so(settings: Settings) -> None:
    async with fleet_of(settings, "acme") as broker:
        await before_the_upgrade(broker, "acme")
        await letter_of(broker, "acme", "job-1", bytes(9 << 20))
        await broker.purge(f"OBJ_{broker.names.blobs_of('acme')}", ">")
        await apply_topology(broker, settings, [SPEC])
        assert await move_letters(broker) == 1
        [letter] = [letter async for letter in letters(broker, tenant="acme")]
        assert letter.failure.error.startswith("cannot be read; its input is not kept: object ")


async def test_a_tenant_with_dead_letters_is_not_removed_unasked(settings: Settings) -> None:
    async with fleet_of(settings, "acme") as broker:
        await check_removable(broker, "acme")
        await letter_of(broker, "acme", "job-1")
        with pytest.raises(UsageError, match="tenant acme has 1 dead letters"):
            await check_removable(broker, "acme")


async def test_a_tenant_that_is_not_there_has_no_dead_letters_to_drop(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def drop_all(tenant: str) -> int:
        return answer(["dead", "drop", "--all", "--tenant", tenant, "--nats", settings.nats])

    async with fleet_of(settings) as broker:
        for number, tenant in enumerate(("main", "acme", "evil")):
            await letter_of(broker, tenant, f"job-{number}")
        assert await asyncio.to_thread(drop_all, "amce") == 0
        assert len([letter async for letter in letters(broker)]) == 3
        assert await asyncio.to_thread(drop_all, "acme") == 0
        await set_tenants(broker, settings, {"evil": Tenant()})
        assert await asyncio.to_thread(drop_all, "amce") == 2
        assert "the fleet has no tenant 'amce': it has evil, main" in capsys.readouterr().err
        assert [letter.failure.key.job.id async for letter in letters(broker)] == ["job-0", "job-2"]
        assert await asyncio.to_thread(drop_all, "main") == 0
        assert [letter.failure.key.job.id async for letter in letters(broker)] == ["job-2"]
