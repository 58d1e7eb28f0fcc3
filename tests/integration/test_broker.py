"""Publishing with back-pressure, and key-value buckets, over a real nats-server."""

import asyncio
import random

import pytest

from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.server import EmbeddedServer
from pipelines.topology import apply_topology
from schemas.errors import BrokerError
from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.wire import Pieces
from tests.integration.queues import MIB, SPEC, a_broker, a_pull, eventually, queue_subject, waiting_in_queue


async def test_an_id_is_stored_once(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        assert await broker.publish(queue_subject(broker), b"one", "id") is True
        assert await broker.publish(queue_subject(broker), b"one", "id") is False
        assert await waiting_in_queue(broker) == 1


async def test_a_full_queue_holds_the_publisher_until_there_is_room(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        publishing = [
            asyncio.create_task(broker.publish(queue_subject(broker), bytes(MIB), f"part-{number}"))
            for number in range(8)
        ]
        await eventually(lambda: broker.waiting == "the fleet")
        stream = broker.names.work_stream("p", "decode")
        assert 0 < await broker.stream_bytes(stream) <= settings.queue_bytes
        assert sum(task.done() for task in publishing) == 3
        other = broker.names.work("p", "encode", Priority.BULK)
        async with asyncio.timeout(60.0):  # a full queue holds nobody else up
            await broker.publish(other, bytes(MIB), "other")
        for number in range(8):
            taken.pull.request(1)
            await taken.until(number + 1)
            await taken.deliveries[number].ack()
        assert all(await asyncio.gather(*publishing))
        assert broker.waiting == ""
        assert {delivery.deliveries for delivery in taken.deliveries} == {1}


async def test_a_full_queue_is_asked_for_room_before_a_large_message_is_sent_again(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        for number in range(3):
            await broker.publish(queue_subject(broker), bytes(MIB), str(number))
        sent = broker.connection.nc.stats["out_bytes"]
        waiting = asyncio.create_task(broker.publish(queue_subject(broker), bytes(MIB), "waits"))
        await eventually(lambda: broker.waiting == "the fleet")
        asked = broker.connection.nc.stats["out_msgs"]
        await eventually(lambda: broker.connection.nc.stats["out_msgs"] > asked + 8)
        assert broker.connection.nc.stats["out_bytes"] - sent < 2 * MIB
        taken.pull.request(1)
        await taken.until(1)
        await taken.deliveries[0].ack()
        assert await waiting
        assert broker.connection.nc.stats["out_bytes"] - sent < 3 * MIB


async def test_a_large_message_in_pieces_arrives_as_one_among_small_ones(settings: Settings) -> None:
    pieces = Pieces([b"a" * 300_000, b"", b"b", bytearray(b"c" * 200_000), memoryview(b"d" * 70_000)])
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        bodies = [b"first", pieces, b"between", Pieces([b"small", b"er"]), bytes(MIB)]
        headers = {"Note": " two\r\nlines "}
        sends = [broker.publish(queue_subject(broker), each, str(n), headers) for n, each in enumerate(bodies)]
        assert all(await asyncio.gather(*sends))
        taken.pull.request(5)
        await taken.until(5)
        found = {delivery.content for delivery in taken.deliveries}
        assert found == {bytes(each) for each in bodies}
        assert {delivery.headers["Note"].split()[0] for delivery in taken.deliveries} == {"two"}
        assert {delivery.headers["Note"].split()[-1] for delivery in taken.deliveries} == {"lines"}


async def test_a_waiting_publisher_can_be_cancelled(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        for number in range(3):
            await broker.publish(queue_subject(broker), bytes(MIB), str(number))
        held = asyncio.create_task(broker.publish(queue_subject(broker), bytes(MIB), "held"))
        await eventually(lambda: broker.waiting == "the fleet")
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert broker.waiting == ""


async def test_a_subject_that_no_stream_takes_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.message_store.ATTEMPTS", 3)
    async with a_broker(settings) as broker:
        with pytest.raises(BrokerError, match=r"no stream takes rigflow\.work\.unknown") as caught:
            await broker.publish("rigflow.work.unknown.decode.bulk", b"", "id")
        assert "publish its pipeline first" in caught.value.hint


async def test_a_bucket_is_watched_before_it_is_there_and_across_a_restart(
    server: EmbeddedServer, settings: Settings
) -> None:
    watcher = await Broker.connect(settings)
    reported: list[tuple[str, bytes]] = []

    async def watch() -> None:
        async for change in follow_bucket(watcher, watcher.names.jobs, "a.*"):
            reported.append(change)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    async with a_broker(settings) as broker:
        bucket = broker.names.jobs
        assert await broker.get(bucket, "a.1") is None
        await broker.put(bucket, "a.1", b"one")
        await broker.put(bucket, "b.1", b"another")
        await eventually(lambda: reported == [("a.1", b"one")])
        await broker.put(bucket, "a.1", b"two")
        await eventually(lambda: reported[-1] == ("a.1", b"two"))
        assert await broker.get(bucket, "a.1") == b"two"
        assert await broker.items(bucket) == {"a.1": b"two", "b.1": b"another"}
        server.kill()
        server.restart()
        await broker.put(bucket, "a.1", b"three")
        await eventually(lambda: reported == [("a.1", b"one"), ("a.1", b"two"), ("a.1", b"three")])
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await watcher.close()


async def test_a_change_at_the_moment_of_the_first_look_is_not_missed(settings: Settings) -> None:
    """A subscription that begins after a value is published, and a reading before it is stored, miss it together."""
    dice = random.Random(1)
    async with a_broker(settings) as broker, a_broker(settings) as other:

        async def sees(key: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            async for found, _ in follow_bucket(other, other.names.jobs, key):
                assert found == key
                return

        for number in range(50):
            key = f"a.{number}"
            looks = [asyncio.create_task(sees(key, 0.003 * dice.random())) for _ in range(8)]
            await asyncio.sleep(0.003 * dice.random())
            await broker.put(broker.names.jobs, key, b"x")
            async with asyncio.timeout(60):
                await asyncio.gather(*looks)


async def test_a_bucket_that_is_made_anew_is_followed_from_its_beginning(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        bucket, seen = broker.names.jobs, []

        async def follow() -> None:
            async for change in follow_bucket(broker, bucket, "a.*"):
                seen.append(change)

        following = asyncio.create_task(follow())
        for number in range(3):
            await broker.put(bucket, f"a.{number}", b"old")
        await eventually(lambda: len(seen) == 3)
        await broker.api(f"STREAM.DELETE.KV_{bucket}")
        await apply_topology(broker, settings, [SPEC])
        await broker.put(bucket, "a.0", b"new")
        await eventually(lambda: seen[3:] == [("a.0", b"new")])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_read_goes_through_as_many_batches_as_it_takes(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await asyncio.gather(*(broker.put(broker.names.jobs, f"j.{n}", b"%d" % n) for n in range(600)))
        assert await broker.items(broker.names.jobs) == {f"j.{n}": b"%d" % n for n in range(600)}
        assert [stored async for stored in broker.read("NO_SUCH_STREAM")] == []
