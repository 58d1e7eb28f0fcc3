"""What a worker takes in: as much as its paces say, and never one of each queue when it has time for one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.topology import apply_topology
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.integration.queues import SPEC, eventually
from workers.in_flight import InFlight, Queue, State
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight
from workers.tail import Tail
from workers.throughput import Throughput

SPECS = [SPEC.model_copy(update={"name": name}) for name in ("p", "q", "r")]


class Slow:
    """A worker that holds what it takes until it is told how long that took."""

    def __init__(self, broker: Broker, settings: Settings, concurrency: int = 1) -> None:
        self.in_flight = MessagesInFlight()
        self.intake = Intake(broker, settings, self.in_flight, self.accept, concurrency)
        self.taken: list[InFlight] = []

    async def accept(self, queue: Queue, delivery: Delivery) -> None:
        message = InFlight(delivery, queue, self.in_flight.drop)
        self.in_flight.take(message)
        self.taken.append(message)
        self.intake.refill()

    async def finish_all(self, spent_s: float) -> None:
        for message in list(self.in_flight.messages):
            message.spent_s = spent_s
            await message.ack()
        self.intake.refill()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine queues answer late."""
    monkeypatch.setattr("workers.intake.PATIENCE_S", 3600.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are known to be quick, so that several are taken."""
    monkeypatch.setattr(MessagesInFlight, "pace_s", lambda *_: 0.001)


@asynccontextmanager
async def a_slow_worker(settings: Settings, backlog: int, concurrency: int = 1) -> AsyncIterator[Slow]:
    """One that hosts three pipelines, `backlog` messages waiting at each."""
    settings = settings.model_copy(update={"ack_wait_s": 30.0})  # on a busy machine nothing comes twice meanwhile
    broker = await Broker.connect(settings)
    try:
        await apply_topology(broker, settings, SPECS)
        for spec in SPECS:
            for number in range(backlog):
                await broker.publish(
                    broker.names.work(spec.name, "decode", Priority.BULK), b"x", f"{spec.name}-{number}"
                )
        worker = Slow(broker, settings, concurrency)
        for spec in SPECS:
            await worker.intake.host(spec, [stage.name for stage in spec.stage])
        yield worker
        await worker.intake.close()
    finally:
        await broker.close()


async def test_a_slow_worker_takes_from_one_full_queue_at_a_time_each_in_turn(
    settings: Settings, patient: None
) -> None:
    async with a_slow_worker(settings, backlog=20) as worker:
        known = set()
        while len(known) < len(SPECS):  # how long an item takes, it has to see first
            await eventually(lambda: bool(worker.in_flight.messages))
            known |= {message.queue.pipeline for message in worker.in_flight.messages}
            await worker.finish_all(spent_s=10.0)
        await asyncio.sleep(0.1)
        await worker.finish_all(spent_s=10.0)
        order = []
        for _ in range(6):
            await eventually(lambda: bool(worker.in_flight.messages))
            await asyncio.sleep(0.05)
            (message,) = worker.in_flight.messages
            order.append(message.queue.pipeline)
            await worker.finish_all(spent_s=10.0)
        assert sorted(order[:3]) == sorted(order[3:]) == ["p", "q", "r"]


async def test_short_items_are_taken_several_at_a_time(settings: Settings) -> None:
    async with a_slow_worker(settings, backlog=40) as worker:
        most = 0
        for _ in range(8):
            await eventually(lambda: bool(worker.in_flight.messages))
            await asyncio.sleep(0.02)
            most = max(most, len(worker.in_flight.messages))
            await worker.finish_all(spent_s=settings.prefetch_s / 5)
        await eventually(lambda: len(worker.in_flight.messages) >= 3)
        asked = settings.credit_items + len(SPECS)
        # what was withdrawn may come beside what is asked for anew; on a busy machine two withdrawals are under way
        assert most <= 3 * asked


async def test_items_that_are_decoded_make_room_for_others(settings: Settings, quick: None, patient: None) -> None:
    """Four decoders: two items wait for them, and eight more may be decoded and not done; requests may come late."""
    settings, late = settings.model_copy(update={"credit_items": 1}), 2 * len(SPECS)
    async with a_slow_worker(settings, backlog=20, concurrency=4) as worker:
        for most in (6, 12, 14, 14):
            await eventually(lambda most=most: len(worker.taken) >= most)
            await asyncio.sleep(0.1)
            assert len(worker.taken) <= most + late
            for message in worker.taken:
                message.state = State.BEGUN
                # of a part that waits for a later stage
                message.waiting[:] = [cast(Any, SimpleNamespace(parts=None, part=None, prefetch=None, nbytes=0))]
            worker.intake.refill()


@pytest.mark.parametrize(("item_s", "kept"), [(0.01, True), (1.0, False)])
async def test_requests_for_short_items_outlast_a_moment_without_credit(
    settings: Settings, patient: None, monkeypatch: pytest.MonkeyPatch, item_s: float, kept: bool
) -> None:
    """Four decoders have all they can decode: to withdraw and ask anew for each short item costs a subscription."""
    monkeypatch.setattr("workers.credit.HELD_S", 3600.0)
    monkeypatch.setattr(Throughput, "slowest_s", item_s)
    async with a_slow_worker(settings, backlog=1, concurrency=4) as worker:
        await eventually(lambda: len(worker.taken) == len(SPECS))
        queues = [message.queue for message in worker.taken]
        for message in worker.taken:
            message.state = State.BEGUN
        worker.intake.refill()
        assert all(worker.intake.outstanding(queue) for queue in queues)
        monkeypatch.setattr(MessagesInFlight, "more_to_decode", lambda *_: 0)
        monkeypatch.setattr(MessagesInFlight, "remaining_s", lambda _: 10.0)
        worker.in_flight.take(worker.taken[0])
        worker.intake.refill()
        assert all(worker.intake.outstanding(queue) for queue in queues) == kept


async def test_an_item_that_overruns_keeps_others_away(settings: Settings, quick: None) -> None:
    async with a_slow_worker(settings, backlog=1) as worker:
        await eventually(lambda: len(worker.taken) == len(SPECS))
        for message in worker.taken:
            message.expected_s = 0.0
        first = worker.taken[0]
        started = time.monotonic()
        worker.in_flight.computing([first])
        await asyncio.sleep(0.05)
        assert worker.in_flight.remaining_s() >= 0.05
        worker.in_flight.computing(())
        assert 0.05 <= first.spent_s <= time.monotonic() - started


async def test_time_of_a_step_is_shared_among_its_leases(settings: Settings, quick: None) -> None:
    async with a_slow_worker(settings, backlog=1) as worker:
        await eventually(lambda: len(worker.taken) == len(SPECS))
        started = time.monotonic()
        worker.in_flight.computing(worker.taken)
        await asyncio.sleep(0.03)
        worker.in_flight.computing(())
        shares = [message.spent_s for message in worker.taken]
        assert min(shares) == max(shares) > 0.0
        assert sum(shares) <= time.monotonic() - started


class Ends(Tail):
    """Queues are left to the others until the worker has looked at one of them."""

    looked = False

    @property
    def left_s(self) -> float:
        return 0.0 if self.looked else 0.01

    def left(self, queue: Queue) -> bool:
        left, self.looked = not self.looked, True
        return left


async def test_a_queue_whose_time_with_the_others_ends_while_the_worker_looks_is_asked(settings: Settings) -> None:
    async with a_slow_worker(settings, backlog=0) as worker:
        queue = next(iter(worker.intake._pulls))
        worker.intake.pause()
        assert not worker.intake.outstanding(queue)
        worker.intake.tail = Ends(worker.in_flight)
        worker.intake.resume()
        assert not worker.intake.outstanding(queue)
        await eventually(lambda: worker.intake.outstanding(queue) == 1)
