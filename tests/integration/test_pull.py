"""Pulling by credit, withdrawing and settling, over a real nats-server."""

import asyncio
import random
import time

import pytest

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.integration.queues import a_broker, a_pull, eventually, queue_is_empty, queue_subject


async def test_only_what_was_asked_for_arrives(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        for number in range(5):
            await broker.publish(queue_subject(broker), b"%d" % number, str(number), {"Of": "test"})
        taken.pull.request(2)
        await taken.until(2)
        assert taken.pull.outstanding == 0
        await asyncio.sleep(0.05)
        taken.pull.request(10)
        await taken.until(5)
        assert taken.pull.outstanding == 7
        assert taken.bodies == [b"0", b"1", b"2", b"3", b"4"]
        assert [delivery.stream_seq for delivery in taken.deliveries] == [1, 2, 3, 4, 5]
        pending = [delivery.pending for delivery in taken.deliveries]
        assert pending[2:] == [2, 1, 0]
        assert pending[0] <= 4, "its consumer may learn of what is stored a moment later"
        assert pending[1] <= 3
        assert taken.deliveries[0].headers["Of"] == "test"
        assert taken.deliveries[0].subject == queue_subject(broker)
        for delivery in taken.deliveries:
            await delivery.ack()
        await eventually(lambda: queue_is_empty(broker))


async def test_priorities_do_not_wait_for_each_other(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, 1, Priority.INTERACTIVE) as taken:
        for number in range(100):
            await broker.publish(queue_subject(broker), b"bulk", f"bulk-{number}")
        await broker.publish(queue_subject(broker, Priority.INTERACTIVE), b"a person waits", "interactive")
        await taken.until(1)
        assert taken.bodies == [b"a person waits"]


async def test_verdicts(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, requests=20) as taken:
        await broker.publish(queue_subject(broker), b"x", "id")
        await taken.until(1)
        await taken.deliveries[0].release()
        await taken.until(2)  # long before its lease ends
        retried = time.monotonic()
        await taken.deliveries[1].retry(0.3)
        await taken.until(3)
        assert time.monotonic() - retried >= 0.25
        assert [delivery.deliveries for delivery in taken.deliveries] == [1, 2, 3]
        await taken.deliveries[2].terminate("it\nwill never work")
        await eventually(lambda: queue_is_empty(broker))
        with pytest.raises(AssertionError, match="settled already"):
            await taken.deliveries[2].ack()


async def test_silence_is_work_redone_and_progress_prevents_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"ack_wait_s": 1.0})
    async with a_broker(settings) as broker, a_pull(broker, requests=20) as taken:
        kept = 0
        for number in range(8):  # again when the machine is so busy that our word may have come too late
            before = len(taken.deliveries)
            await broker.publish(queue_subject(broker), b"busy", f"busy-{number}")
            await eventually(lambda before=before: len(taken.deliveries) > before)
            delivery = taken.deliveries[before]
            for _ in range(8):
                await asyncio.sleep(settings.ack_wait_s / 5)
                await delivery.progress()
            kept = len(taken.deliveries) - before
            if kept == 1:
                break
            await delivery.ack()
        assert kept == 1, "progress does not prevent that work is redone"
        await eventually(lambda: len(taken.deliveries) > before + 1)
        assert taken.deliveries[before + 1].deliveries == 2
        await taken.deliveries[-1].ack()


async def test_closing_hands_back_what_nobody_took(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.pull.CLOSE_S", 60.0)
    async with a_broker(settings) as broker:
        started, go_on = asyncio.Event(), asyncio.Event()
        handled: list[bytes] = []

        async def slow(delivery: Delivery) -> None:
            started.set()
            await go_on.wait()
            handled.append(await delivery.load())
            await delivery.ack()

        pull = Pull(broker, broker.names.work_stream("p", "decode"), "bulk", slow)
        await pull.open()
        pull.request(3)
        for number in range(3):
            await broker.publish(queue_subject(broker), b"%d" % number, str(number))
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await pull.close()
        assert handled == [b"0"]
        async with a_pull(broker, requests=3) as taken:
            await taken.until(2)  # long before their leases end
            assert sorted(taken.bodies) == [b"1", b"2"]


async def test_a_failing_handler_is_reported_and_the_next_message_comes(settings: Settings) -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
    async with a_broker(settings) as broker:
        seen = []

        async def fails_once(delivery: Delivery) -> None:
            seen.append(delivery)
            if len(seen) == 1:
                raise ValueError("a bug")

        pull = Pull(broker, broker.names.work_stream("p", "decode"), "bulk", fails_once)
        await pull.open()
        pull.request(2)
        for number in range(2):
            await broker.publish(queue_subject(broker), b"%d" % number, str(number))
        await eventually(lambda: len(seen) == 2)
        await pull.close()
    assert reports == ["a bug"]


async def test_what_is_withdrawn_goes_to_others_and_nothing_is_lost(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, 3) as busy, a_pull(broker) as idle:
        await eventually(lambda: waiting_pulls(broker, 3))
        busy.pull.withdraw()
        assert busy.pull.outstanding == 0
        await eventually(lambda: waiting_pulls(broker, 0))
        idle.pull.request(2)
        for number in range(3):
            await broker.publish(queue_subject(broker), b"%d" % number, str(number))
        await idle.until(2)
        busy.pull.request(1)
        await busy.until(1)
        assert (idle.bodies, busy.bodies) == ([b"0", b"1"], [b"2"])


async def test_withdrawing_while_messages_fly_loses_none(settings: Settings) -> None:
    total, dice = 1500, random.Random(1)
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        sending = asyncio.create_task(publish_all(broker, total))
        settled = 0
        async with asyncio.timeout(150):
            while settled < total:
                taken.pull.request(10)
                await asyncio.sleep(0.006 * dice.random())
                taken.pull.withdraw()
                for delivery in taken.deliveries[settled:]:
                    await delivery.ack()
                    settled += 1
                await asyncio.sleep(0.003)
        await sending
        await eventually(lambda: queue_is_empty(broker))


async def test_withdrawing_before_the_request_is_sent_leaves_none(settings: Settings) -> None:
    """At any point of opening an inbox and sending a request; an unwanted message would stop the pull from asking."""
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        for turns in range(24):
            taken.pull.request(1)
            for _ in range(turns):
                await asyncio.sleep(0)
            taken.pull.withdraw()
            await asyncio.sleep(0.005)
        await eventually(lambda: waiting_pulls(broker, 0))
        await broker.publish(queue_subject(broker), b"x", "id")
        await asyncio.sleep(0.05)
        assert (taken.bodies, taken.pull.outstanding) == ([], 0)
        taken.pull.request(1)
        await taken.until(1)


async def publish_all(broker: Broker, total: int) -> None:
    for number in range(total):
        await broker.publish(queue_subject(broker), b"%d" % number, str(number))


async def waiting_pulls(broker: Broker, count: int) -> bool:
    """Whether so many requests stand at the bulk priority of the decode queue."""
    info = await broker.api(f"CONSUMER.INFO.{broker.names.work_stream('p', 'decode')}.{Priority.BULK.value}")
    return int(info["num_waiting"]) == count
