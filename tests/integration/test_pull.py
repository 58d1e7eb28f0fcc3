"""Pulling by credit and settling, over a real nats-server and one that is killed in the middle."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Sequence

import pytest
from nats.aio.msg import Msg

from pipelines.broker import Broker
from pipelines.pull import Delivery, Pull
from pipelines.server import EmbeddedServer
from schemas.messages import Priority
from schemas.settings import Settings
from tests.integration.queues import Taken, a_broker, a_pull, eventually, queue_is_empty, queue_subject


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
        assert taken.deliveries[-1].deliveries == 2
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
    monkeypatch.setattr("pipelines.connection.REQUEST_S", 120.0)
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
        await broker.connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.reader", b"{", reader._inbox)
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

        async def lost(*_: object) -> None:
            monkeypatch.setattr(broker.connection, "send", sent)

        monkeypatch.setattr(broker.connection, "send", lost)  # the request gets nowhere, as at a node that dies
        taken.pull.request(1)
        await asyncio.sleep(0.05)
        await broker.publish(queue_subject(broker), b"work", "id")
        await taken.until(1)


ODD_SUBJECTS = (b"\xff\xfe", "\u202e".encode(), b"\x0b", b"\x0c", b"\x1c", b"\x00", b"\x1b[31m", b"x" * 3000)
ODD_HEADERS = (
    b"NATS/1.0",
    b"X",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff \xff\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xff\r\nA: \xff\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: x\r\nStatus: 503\r\n\r\n",
)


async def publish_raw(url: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Publish messages of one byte, given as subject and headers, as no client library would."""
    host, port = url.rpartition("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose": false, "headers": true}\r\n')
    for subject, headers in messages:
        size = b"%d %d" % (len(headers), len(headers) + 1) if headers else b"1"
        writer.write((b"HPUB " if headers else b"PUB ") + subject + b" " + size + b"\r\n" + headers + b"x\r\n")
    writer.write(b"PING\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"PONG\r\n")).count(b"-ERR") == 0
    writer.close()


async def test_odd_subjects_and_headers_of_any_client_stop_no_reader(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        media = [(b"rigflow.media." + token + b".p", b"") for token in ODD_SUBJECTS]
        media += [(b"rigflow.media.main.p", headers) for headers in ODD_HEADERS]
        await publish_raw(settings.nats, media)
        taken = Taken()
        pull = Pull(broker, broker.names.media_stream("p"), "split", taken.take)
        await pull.open()
        pull.request(100)
        await taken.until(len(media), within_s=20)
        assert {delivery.deliveries for delivery in taken.deliveries} == {1}
        await pull.close()
        assert broker.connection.losses == 0


async def test_a_status_that_a_client_wrote_ends_no_list_and_hides_no_value(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        bucket = broker.names.jobs
        forged = [(f"$KV.{bucket}.main.b{number}".encode(), odd) for number, odd in enumerate(ODD_HEADERS)]
        await publish_raw(settings.nats, forged)
        await broker.put(bucket, "main.z", b"good")
        items = await broker.items(bucket, "main.*")
        assert items["main.z"] == b"good"
        assert len(items) == len(forged) + 1
        stored = [await broker.last(f"KV_{bucket}", subject.decode()) for subject, _ in forged]
        assert [each.body for each in stored if each is not None] == [b"x"] * len(forged)
