"""What a worker takes from the queues of tenants: shares by weight, counted in work, on a real broker."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from pipelines.broker import Broker
from pipelines.tenant_admin import remove_tenant, set_tenants
from pipelines.topology import apply_topology
from placement.fair_share import BURST_S
from schemas.jobs import Priority
from schemas.placed import PlacedDevice, PlacedPipeline
from schemas.settings import Settings
from schemas.tenants import Tenant
from tests.integration.queues import SPEC, eventually
from tests.integration.test_intake import Slow
from workers.in_flight import InFlight, Queue, State
from workers.intake import PREEMPTING

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE


async def send(broker: Broker, tenant: str, count: int, priority: Priority = BULK, stage: str = "decode") -> None:
    """Messages of a tenant in front of a stage."""
    subject = broker.names.work(SPEC.name, stage, priority, tenant)
    sent = (broker.publish(subject, b"x", f"{tenant}-{priority}-{number}") for number in range(count))
    await asyncio.gather(*sent)


@asynccontextmanager
async def sharing(
    settings: Settings, weights: Mapping[str, float], waiting: Mapping[str, int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Broker, Slow]]:
    """A worker that tenants share, with so many messages of each waiting."""
    monkeypatch.setattr("workers.intake.PATIENCE_S", 1.0)  # on a busy machine queues answer late
    settings = settings.model_copy(update={"ack_wait_s": 30.0})
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        tenants = {name: Tenant(weight=weight) for name, weight in weights.items()}
        monkeypatch.setattr("pipelines.tenant_admin.hosted_pipelines", _only_spec)
        await set_tenants(broker, settings, tenants)
        for tenant, count in waiting.items():
            await send(broker, tenant, count)
        worker = Slow(broker, settings)
        await worker.intake.host(SPEC, [stage.name for stage in SPEC.stage])
        yield broker, worker
        await worker.intake.close()


async def _only_spec(_: Broker) -> list[object]:
    return [SPEC]


async def work(worker: Slow, count: int, seconds: Mapping[str, float]) -> list[str]:
    """Do so many messages, each of which takes the seconds of its tenant; whose each was."""
    done: list[str] = []
    while len(done) < count:
        await eventually(lambda: bool(worker.in_flight.messages))
        for message in list(worker.in_flight.messages):
            done.append(message.queue.tenant)
            message.spent_s = seconds[message.queue.tenant]
            await message.ack()
        worker.intake.refill()
    return done


async def test_two_tenants_have_shares_by_weight(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 : 3 within 5 % of the seconds, also where the messages of one take five times as long."""
    seconds = {"one": 1.0, "three": 5.0}
    async with sharing(settings, {"one": 1.0, "three": 3.0}, {"one": 100, "three": 100}, monkeypatch) as (_, worker):
        done = Counter(await work(worker, 130, seconds))
    one, three = done["one"] * seconds["one"], done["three"] * seconds["three"]
    assert three / (one + three) == pytest.approx(0.75, rel=0.05)


async def test_a_tenant_with_few_messages_has_its_share_beside_one_with_many(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing(settings, {"many": 1.0, "few": 1.0}, {"many": 300, "few": 10}, monkeypatch) as (_, worker):
        done = await work(worker, 24, {"many": 1.0, "few": 1.0})
    assert done.count("few") == 10


async def test_what_a_tenant_leaves_is_used_and_it_has_its_share_when_it_comes_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"there": 1.0, "late": 1.0}
    async with sharing(settings, {"there": 1.0, "late": 1.0}, {"there": 60}, monkeypatch) as (broker, worker):
        assert await work(worker, 20, seconds) == ["there"] * 20
        await send(broker, "late", 20)
        done = await work(worker, 24, seconds)
    assert done.count("late") == pytest.approx(12, abs=2)


async def test_a_person_goes_first_unless_its_tenant_is_far_ahead(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interactive work of a tenant that floods with it counts like bulk, once it is `BURST_S` ahead of its share."""
    seconds = {"flood": 1.0, "bulk": 1.0}
    async with sharing(settings, {"flood": 1.0, "bulk": 1.0}, {"bulk": 100}, monkeypatch) as (broker, worker):
        await work(worker, 4, seconds)
        await send(broker, "flood", 80, INTERACTIVE)
        done = await work(worker, 80, seconds)
    first, then = done[: int(BURST_S)], done[int(1.5 * BURST_S) :]
    assert first.count("flood") >= 0.7 * len(first), "people go first"
    assert then.count("bulk") >= 0.4 * len(then), "and do not keep all others away"


async def test_a_person_does_not_wait_for_the_end_of_a_long_message(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with work for long asks for no more bulk, but takes what a person waits for: it goes first then."""
    async with sharing(settings, {"bulk": 1.0, "person": 1.0}, {"bulk": 20}, monkeypatch) as (broker, worker):
        await work(worker, 3, {"bulk": 100.0})
        await eventually(lambda: bool(worker.in_flight.messages))
        (long,) = worker.in_flight.messages
        await send(broker, "person", 1, INTERACTIVE)
        await eventually(lambda: len(worker.in_flight.messages) == 2)
        assert {message.queue.tenant for message in worker.in_flight.messages} == {"bulk", "person"}
        assert not long.ended
        for message in list(worker.in_flight.messages):
            await message.ack()


async def test_a_worker_with_long_work_keeps_two_of_the_messages_that_people_send_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a request at each of their queues; what comes beside the two goes back, for others to take."""
    people, most = ("ann", "bob", "eve", "joe"), 0
    weights = {"bulk": 1.0} | dict.fromkeys(people, 1.0)
    async with sharing(settings, weights, {"bulk": 20}, monkeypatch) as (broker, worker):
        await work(worker, 3, {"bulk": 100.0})
        queues = [Queue(SPEC.name, "decode", INTERACTIVE, name) for name in people]
        await eventually(lambda: bool(worker.in_flight.messages) and all(map(worker.intake.outstanding, queues)))
        (long,) = worker.in_flight.messages
        take = worker.in_flight.take

        def count(message: InFlight) -> None:
            nonlocal most
            take(message)
            most = max(most, len(worker.in_flight.messages - {long}))

        monkeypatch.setattr(worker.in_flight, "take", count)
        await asyncio.gather(*(send(broker, name, 1, INTERACTIVE) for name in people))
        done: set[str] = set()
        while done != set(people):
            await eventually(lambda: len(worker.in_flight.messages) > 1)
            for message in worker.in_flight.messages - {long}:
                done.add(message.queue.tenant)
                await message.ack()
            worker.intake.refill()
    assert most <= PREEMPTING


async def test_a_tenant_whose_request_was_withdrawn_before_its_answer_keeps_its_turn(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue had more messages and has not answered: that is no empty queue, however long nothing is asked."""
    async with sharing(settings, {"late": 1.0, "there": 1.0}, {"late": 20, "there": 20}, monkeypatch) as (_, worker):
        await work(worker, 6, {"late": 1.0, "there": 1.0})
        shares, queue = worker.in_flight.shares, Queue(SPEC.name, "decode", BULK, "late")
        for each in list(worker.in_flight.messages):
            await each.ack()
        shares.serve("there", 50.0)
        worker.intake._withdraw()
        worker.intake._full.discard(queue)
        worker.intake._late_until_s[queue] = 0.0  # long ago
        worker.intake._ask(1, 1.0)
        assert shares.ahead_s("there") > 40.0, "what is owed to the other is not forgotten"


async def test_a_tenant_that_waits_for_another_whose_queue_is_empty_is_served(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is in flight: no message that ends has the worker look at its queues again."""
    async with sharing(settings, {"late": 1.0, "there": 1.0}, {}, monkeypatch) as (broker, worker):
        worker.intake._withdraw()
        worker.in_flight.shares.serve("there", 50.0)
        worker.in_flight.shares.end("there", 0.0)
        worker.intake._late_until_s[Queue(SPEC.name, "decode", BULK, "late")] = 0.0  # others took its messages
        worker.intake.refill()
        await send(broker, "there", 1)
        await eventually(lambda: bool(worker.in_flight.messages))


@pytest.mark.parametrize("cause", ["its tenant is removed", "its stage is given to others"])
async def test_a_queue_that_is_left_unanswered_does_not_keep_the_work_of_others_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """It had more messages, which another worker took: no tenant waits for ever for its turn there."""
    async with sharing(settings, {"gone": 1.0, "there": 1.0}, {}, monkeypatch) as (broker, worker):
        monkeypatch.setattr("workers.intake.PATIENCE_S", 0.005)
        queue = Queue(SPEC.name, "resize", BULK, "gone")
        await send(broker, "gone", 1, stage="resize")
        await eventually(lambda: bool(worker.in_flight.messages) and not worker.intake.outstanding(queue))
        await send(broker, "gone", 3, stage="resize")  # the first of them is there already
        await work(worker, 1, {"gone": 1.0})
        await eventually(lambda: bool(worker.in_flight.messages))
        await broker.api(f"STREAM.MSG.DELETE.{broker.names.work_stream(SPEC.name, 'resize')}", {"seq": 3})
        await work(worker, 1, {"gone": 1.0})
        await eventually(lambda: queue in worker.intake._late_until_s)
        if cause == "its tenant is removed":
            await remove_tenant(broker, settings, "gone")
            await worker.intake.leave_tenants()
        else:
            role = {"d": PlacedDevice(runs=("decode",), takes=("decode",))}
            worker.intake.roles.renew(PlacedPipeline(pipeline=SPEC.name, revision="r", devices=role, since_s=0), "d", 0)
        await send(broker, "there", 6)
        assert await work(worker, 6, {"there": 1.0}) == ["there"] * 6


async def test_tenants_that_come_and_go_while_a_worker_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing(settings, {"first": 1.0}, {"first": 1}, monkeypatch) as (broker, worker):
        assert await work(worker, 1, {"first": 1.0}) == ["first"]
        await set_tenants(broker, settings, {"first": Tenant(), "second": Tenant(weight=2)})
        await send(broker, "second", 2)
        await worker.intake.leave_tenants()
        await worker.intake.host(SPEC, [stage.name for stage in SPEC.stage])
        assert await work(worker, 2, {"second": 1.0}) == ["second"] * 2
        await send(broker, "first", 2)
        await eventually(lambda: bool(worker.in_flight.messages))
        (held,) = worker.in_flight.messages
        await remove_tenant(broker, settings, "first")
        await worker.intake.leave_tenants()
        assert held.state is State.CANCELLED
        await send(broker, "second", 4)
        assert await work(worker, 2, {"second": 1.0}) == ["second"] * 2
