"""Pulling while the server is killed, a reader is deleted or a request is lost."""

import asyncio
import json
import os
import signal
from contextlib import aclosing

import pytest
from nats.aio.msg import Msg

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.follow import follow
from pipelines.pull import Pull
from pipelines.server import EmbeddedServer
from schemas.settings import Settings
from tests.integration.queues import Taken, a_broker, a_pull, eventually, queue_is_empty, queue_subject


async def test_requests_that_expire_or_get_lost_are_made_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.pull.EXPIRES_S", 0.1)
    monkeypatch.setattr("pipelines.pull.LATE_S", 0.1)
    monkeypatch.setattr("pipelines.pull._NEXT", json.dumps({"batch": 1, "expires": 100_000_000}).encode())
    async with a_broker(settings) as broker, a_pull(broker, requests=1) as taken:
        await asyncio.sleep(0.35)  # three expiries
        assert taken.pull.outstanding == 1
        taken.pull._expiries.append(0.0)  # one that the server knows nothing of
        taken.pull.request(1)
        await broker.publish(queue_subject(broker), b"1", "1")
        await broker.publish(queue_subject(broker), b"2", "2")
        await taken.until(2)


async def test_a_request_learns_of_a_dead_server_at_once(
    server: EmbeddedServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.inbox.REQUEST_S", 120.0)
    async with a_broker(settings) as broker:
        await broker.connection.nc.subscribe("silence")
        asking = asyncio.create_task(broker.connection.request("silence"))
        await asyncio.sleep(0.05)
        server.kill()
        with pytest.raises(Exception, match="connection broke"):  # and not: no answer within 120 s
            await asking
        assert broker.waiting == "the broker"
        server.restart()
        await broker.connection.wait_connected()


async def test_a_killed_server_loses_nothing_and_nothing_comes_twice_out_of_a_reader(
    server: EmbeddedServer, settings: Settings
) -> None:
    """Publish, pull and ack, and read results, while the server is killed and restarted three times."""
    count = 600
    settings = settings.model_copy(update={"ack_wait_s": 1.0})  # what was on its way from a killed server comes again
    async with a_broker(settings) as broker, a_broker(settings) as worker:
        done: dict[bytes, int] = {}
        names = broker.names

        async def work(delivery: Delivery) -> None:
            body = await delivery.load()
            await worker.publish(f"{names.prefix}.results.main.p.job", body, f"result-{body.decode()}")
            done[body] = done.get(body, 0) + 1
            await delivery.ack()
            pull.request(1)

        pull = Pull(worker, names.work_stream("p", "decode"), "bulk", work)
        await pull.open()
        pull.request(16)
        read: list[bytes] = []

        async def on_result(delivery: Delivery) -> None:
            read.append(await delivery.load())
            reader.request(1)

        await broker.create_reader(names.results_stream, "reader", [f"{names.prefix}.results.main.p.job"])
        reader = Pull(broker, names.results_stream, "reader", on_result)
        await reader.open()
        reader.request(16)

        async def publish() -> None:
            for number in range(count):
                await broker.publish(queue_subject(broker), b"%d" % number, f"message-{number}")

        publishing = asyncio.create_task(publish())
        for thousandths in (250, 500, 750):
            await eventually(lambda enough=count * thousandths // 1000: len(done) > enough)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart)
        await publishing
        await eventually(lambda: len(done) == count)
        await eventually(lambda: len(read) >= count)
        await asyncio.sleep(0.1)
        assert sorted(read) == sorted(b"%d" % number for number in range(count))
        print(f"{sum(done.values()) - count} of {count} messages were worked on more than once")
        await pull.close()
        await reader.close()
        await broker.delete_consumer(names.results_stream, "reader")
        await broker.delete_consumer(names.results_stream, "reader")


async def test_verdicts_given_while_the_server_is_away_arrive_later(server: EmbeddedServer, settings: Settings) -> None:
    """It is told to stop: killed, it may forget what it gave out a moment ago, and gives it out again."""
    async with a_broker(settings) as broker, a_pull(broker, requests=1) as taken:
        await broker.publish(queue_subject(broker), b"x", "id")
        await taken.until(1)
        os.kill(server.pid, signal.SIGTERM)
        await eventually(lambda: broker.waiting == "the broker")
        await taken.deliveries[0].ack()
        assert await asyncio.to_thread(server.wait, 60.0)
        server.restart()
        await eventually(lambda: queue_is_empty(broker))
        assert len(taken.deliveries) == 1


async def test_a_reader_that_is_gone_is_made_anew_and_repeats_nothing(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        stream, subject = broker.names.results_stream, f"{broker.names.prefix}.results.main.p.job"
        await broker.create_reader(stream, "reader", [subject])
        taken = Taken()
        reader = Pull(broker, stream, "reader", taken.take)
        await reader.open()
        reader.request(4)
        for number in range(6):
            await broker.publish(subject, b"%d" % number, str(number))
            if number == 2:
                await taken.until(3)
                await broker.delete_consumer(stream, "reader")  # as when the node that had it died
                reader.request(2)
        await taken.until(6)
        assert taken.bodies == [b"%d" % number for number in range(6)]
        await reader.close()


async def test_a_refused_reader_is_made_anew_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other requests, which stand at the old one while that is deleted, are no further refusals."""
    for name in ("REFUSED_S", "LONGEST_REFUSED_S"):
        monkeypatch.setattr(f"pipelines.pull.{name}", 0.01)
    async with a_broker(settings) as broker:
        stream, subject = broker.names.results_stream, f"{broker.names.prefix}.results.main.p.job"
        made: list[bytes] = []

        async def on_made(message: Msg) -> None:
            made.append(message.data)

        await broker.connection.nc.subscribe(f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{stream}.reader", cb=on_made)
        await broker.create_reader(stream, "reader", [subject])
        taken = Taken()
        reader = Pull(broker, stream, "reader", taken.take)
        await reader.open()
        reader.request(4)
        await eventually(lambda: len(made) == 1)
        broker.connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.reader", b"{", reader._inbox)
        await eventually(lambda: len(made) == 2)
        await asyncio.sleep(1.0)
        assert len(made) == 2
        await broker.publish(subject, b"result", "1")
        await taken.until(1)
        await reader.close()


async def test_a_server_that_holds_no_request_of_ours_is_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.pull.SILENT_S", 0.3)
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        sent = broker.connection.send

        def lost(*_: object) -> None:
            monkeypatch.setattr(broker.connection, "send", sent)

        monkeypatch.setattr(broker.connection, "send", lost)  # the request gets nowhere, as at a node that dies
        taken.pull.request(1)
        await asyncio.sleep(0.05)
        await broker.publish(queue_subject(broker), b"work", "id")
        await taken.until(1)


async def infos_asked(broker: Broker, stream: str) -> list[str]:
    """The requests for information about a stream from now on."""
    asked: list[str] = []

    async def on_request(message: Msg) -> None:
        asked.append(message.subject)

    await broker.connection.nc.subscribe(f"$JS.API.STREAM.INFO.{stream}", cb=on_request)
    return asked


async def test_a_reader_that_is_resumed_asks_for_its_stream_once(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        stream, subject = broker.names.results_stream, f"{broker.names.prefix}.results.main.p.job"
        await broker.create_reader(stream, "reader", [subject])
        asked = await infos_asked(broker, stream)
        assert await broker.resume_reader(stream, "reader", 0) == 0
        await broker.connection.flush()
        assert len(asked) == 1


async def test_a_reader_asks_for_no_stream_and_notices_one_that_was_created_again(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        stream, subject = broker.names.results_stream, f"{broker.names.prefix}.results.main.p.job"
        for number in range(3):
            await broker.publish(subject, b"%d" % number, str(number))
        asked = await infos_asked(broker, stream)
        assert await broker.create_reader(stream, "reader", [subject]) == 3
        await broker.connection.flush()
        assert not asked
        assert await broker.resume_reader(stream, "reader", 2) == 2
        config = (await broker.api(f"STREAM.INFO.{stream}"))["config"]
        await broker.api(f"STREAM.DELETE.{stream}")
        await broker.api(f"STREAM.CREATE.{stream}", config)
        assert await broker.resume_reader(stream, "reader", 2) == 0
        await broker.drop_reader(stream, "reader")


async def test_a_reader_that_is_lost_in_the_middle_of_what_there_is_misses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks the reader is gone: that does not mean that nothing is left."""
    monkeypatch.setattr("pipelines.follow.STUCK_S", 0.05)
    monkeypatch.setattr("pipelines.follow.PREFETCH", 2)
    async with a_broker(settings) as broker:
        stream, subject = broker.names.results_stream, "rigflow.results.main.p.job"
        for number in range(12):
            await broker.publish(subject, str(number).encode(), f"{number}")
        found: list[bytes] = []
        async with aclosing(follow(broker, stream, [subject])) as following:
            async for stored in following:
                if stored is None:
                    break
                found.append(stored.body)
                if len(found) in (3, 7):
                    for reader in (await broker.api(f"CONSUMER.LIST.{stream}"))["consumers"]:
                        await broker.api(f"CONSUMER.DELETE.{stream}.{reader['name']}")
        assert found == [str(number).encode() for number in range(12)]
