"""Publishing, pulling and settling over a real nats-server, and over one that is killed in the middle."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nkeys
import pytest

from pipelines.blobs import blob_info, get_blob, put_blob
from pipelines.broker import Broker
from pipelines.pull import Delivery, Pull
from pipelines.server import EmbeddedServer
from pipelines.topology import apply_topology
from schemas.errors import BrokerError, ExitCode, StoreError, UsageError
from schemas.messages import Lane
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB

MIB = 1 << 20
SPEC = PipelineSpec.model_validate(
    {
        "name": "p",
        "stage": [{"kind": "decode"}, {"kind": "preprocess", "layout": "planes"}, {"kind": "encode", "format": "npz"}],
    }
)


@asynccontextmanager
async def a_broker(settings: Settings) -> AsyncIterator[Broker]:
    """A connected broker that has the streams of `SPEC`."""
    broker = await Broker.connect(settings)
    try:
        await apply_topology(broker, settings, [SPEC])
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def a_pull(broker: Broker, requests: int = 0, lane: Lane = Lane.BULK) -> AsyncIterator["Taken"]:
    """A pull on the decode hop."""
    taken = Taken()
    pull = taken.pull = Pull(broker, broker.names.work_stream("p", "decode"), lane.value, taken.take)
    await pull.open()
    pull.request(requests)
    try:
        yield taken
    finally:
        await pull.close()


class Taken:
    """What a pull delivered."""

    pull: Pull

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery._body or b"" for delivery in self.deliveries]

    async def until(self, count: int, within_s: float = 10.0) -> None:
        await eventually(lambda: len(self.deliveries) >= count, within_s)
        assert len(self.deliveries) == count


async def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.002)


def hop(broker: Broker, lane: Lane = Lane.BULK) -> str:
    return broker.names.work("p", "decode", lane)


async def waiting_in_hop(broker: Broker) -> int:
    return int((await broker.api(f"STREAM.INFO.{broker.names.work_stream('p', 'decode')}"))["state"]["messages"])


# publishing


async def test_an_id_is_stored_once(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        assert await broker.publish(hop(broker), b"one", "id") is True
        assert await broker.publish(hop(broker), b"one", "id") is False
        assert await waiting_in_hop(broker) == 1


async def test_a_full_queue_holds_the_publisher_until_there_is_room(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        publishing = [
            asyncio.create_task(broker.publish(hop(broker), bytes(MIB), f"part-{number}")) for number in range(8)
        ]
        await eventually(lambda: broker.waiting == "the fleet")
        stream = broker.names.work_stream("p", "decode")
        assert 0 < await broker.stream_bytes(stream) <= settings.hop_bytes
        assert sum(task.done() for task in publishing) == 3
        other = broker.names.work("p", "encode", Lane.BULK)
        async with asyncio.timeout(2.0):  # a full queue holds nobody else up
            await broker.publish(other, bytes(MIB), "other")
        for number in range(8):
            taken.pull.request(1)
            await taken.until(number + 1)
            await taken.deliveries[number].ack()
        assert all(await asyncio.gather(*publishing))
        assert broker.waiting == ""
        assert {delivery.deliveries for delivery in taken.deliveries} == {1}


async def test_a_waiting_publisher_can_be_cancelled(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        for number in range(3):
            await broker.publish(hop(broker), bytes(MIB), str(number))
        held = asyncio.create_task(broker.publish(hop(broker), bytes(MIB), "held"))
        await eventually(lambda: broker.waiting == "the fleet")
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert broker.waiting == ""


async def test_a_subject_that_no_stream_takes_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.broker.ATTEMPTS", 3)
    async with a_broker(settings) as broker:
        with pytest.raises(BrokerError, match="no stream takes rigflow.work.unknown") as caught:
            await broker.publish("rigflow.work.unknown.decode.bulk", b"", "id")
        assert "publish its pipeline first" in caught.value.hint


# pulling and settling


async def test_only_what_was_asked_for_arrives(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker) as taken:
        for number in range(5):
            await broker.publish(hop(broker), b"%d" % number, str(number), {"Of": "test"})
        taken.pull.request(2)
        await taken.until(2)
        assert taken.pull.outstanding == 0
        await asyncio.sleep(0.05)
        taken.pull.request(10)
        await taken.until(5)
        assert taken.pull.outstanding == 7
        assert taken.bodies == [b"0", b"1", b"2", b"3", b"4"]
        assert [delivery.stream_seq for delivery in taken.deliveries] == [1, 2, 3, 4, 5]
        assert [delivery.pending for delivery in taken.deliveries] == [4, 3, 2, 1, 0]
        assert taken.deliveries[0].headers["Of"] == "test"
        assert taken.deliveries[0].subject == hop(broker)
        for delivery in taken.deliveries:
            await delivery.ack()
        await broker.connection.nc.flush()
        assert await waiting_in_hop(broker) == 0


async def test_lanes_do_not_wait_for_each_other(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, 1, Lane.INTERACTIVE) as taken:
        for number in range(100):
            await broker.publish(hop(broker), b"bulk", f"bulk-{number}")
        await broker.publish(hop(broker, Lane.INTERACTIVE), b"a person waits", "interactive")
        await taken.until(1)
        assert taken.bodies == [b"a person waits"]


async def test_verdicts(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, requests=20) as taken:
        await broker.publish(hop(broker), b"x", "id")
        await taken.until(1)
        released = time.monotonic()
        await taken.deliveries[0].release()
        await taken.until(2)
        assert time.monotonic() - released < 0.5
        retried = time.monotonic()
        await taken.deliveries[1].retry(0.3)
        await taken.until(3)
        assert 0.3 <= time.monotonic() - retried < 0.9
        assert [delivery.deliveries for delivery in taken.deliveries] == [1, 2, 3]
        await taken.deliveries[2].terminate("it\nwill never work")
        await broker.connection.nc.flush()
        assert await waiting_in_hop(broker) == 0
        with pytest.raises(AssertionError, match="settled already"):
            await taken.deliveries[2].ack()


async def test_silence_is_work_redone_and_progress_prevents_it(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, requests=20) as taken:
        await broker.publish(hop(broker), b"busy", "busy")
        await taken.until(1)
        for _ in range(5):
            await asyncio.sleep(settings.ack_wait_s / 3)
            await taken.deliveries[0].progress()
        assert len(taken.deliveries) == 1
        silent = time.monotonic()
        await taken.until(2)
        assert time.monotonic() - silent >= 0.9 * settings.ack_wait_s
        assert taken.deliveries[1].deliveries == 2
        await taken.deliveries[1].ack()


async def test_work_that_is_never_done_is_told_of(settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, requests=settings.max_deliver + 1) as taken:
        await broker.publish(hop(broker), b"poison", "poison")
        for attempt in range(settings.max_deliver):
            await taken.until(attempt + 1)
            await taken.deliveries[attempt].release()
        told = [stored async for stored in until_any(broker, broker.names.advisory_stream)]
        advisory = json.loads(told[0].body)
        assert (advisory["stream"], advisory["stream_seq"]) == (broker.names.work_stream("p", "decode"), 1)
        poison = await broker.message(advisory["stream"], advisory["stream_seq"])
        assert poison is not None
        assert (poison.subject, poison.body) == (hop(broker), b"poison")
        await broker.delete_message(advisory["stream"], 1)
        await broker.delete_message(advisory["stream"], 1)
        assert await broker.message(advisory["stream"], 1) is None


async def until_any(broker: Broker, stream: str) -> AsyncIterator:
    async with asyncio.timeout(5.0):
        while not (found := [stored async for stored in broker.read(stream)]):
            await asyncio.sleep(0.01)
    for stored in found:
        yield stored


async def test_closing_hands_back_what_nobody_took(settings: Settings) -> None:
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
            await broker.publish(hop(broker), b"%d" % number, str(number))
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await pull.close()
        assert handled == [b"0"]
        async with a_pull(broker, requests=3) as taken:
            closed = time.monotonic()
            await taken.until(2)
            assert time.monotonic() - closed < 0.5 * settings.ack_wait_s
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
            await broker.publish(hop(broker), b"%d" % number, str(number))
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
        await broker.publish(hop(broker), b"1", "1")
        await broker.publish(hop(broker), b"2", "2")
        await taken.until(2)


# a server that dies


async def test_a_request_learns_of_a_dead_server_at_once(server: EmbeddedServer, settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.connection.nc.subscribe("silence")
        asking = asyncio.create_task(broker.connection.request("silence"))
        await asyncio.sleep(0.05)
        server.kill()
        killed = time.monotonic()
        with pytest.raises(Exception, match="connection broke"):
            await asking
        assert time.monotonic() - killed < 1.0
        assert broker.waiting == "the broker"
        server.restart()
        await broker.connection.wait_connected()


async def test_a_killed_server_loses_nothing_and_nothing_comes_twice_out_of_a_reader(
    server: EmbeddedServer, settings: Settings
) -> None:
    """Publish, pull and ack, and read results, while the server is killed and restarted three times."""
    count = 600
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
                await broker.publish(hop(broker), b"%d" % number, f"message-{number}")

        publishing = asyncio.create_task(publish())
        for thousandths in (250, 500, 750):
            await eventually(lambda enough=count * thousandths // 1000: len(done) > enough, 30.0)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart)
        await publishing
        await eventually(lambda: len(done) == count, 30.0)
        await eventually(lambda: len(read) >= count, 30.0)
        await asyncio.sleep(0.1)
        assert sorted(read) == sorted(b"%d" % number for number in range(count))
        print(f"{sum(done.values()) - count} of {count} messages were worked on more than once")
        await pull.close()
        await reader.close()
        await broker.delete_consumer(names.results_stream, "reader")
        await broker.delete_consumer(names.results_stream, "reader")


async def test_verdicts_given_while_the_server_is_away_arrive_later(server: EmbeddedServer, settings: Settings) -> None:
    async with a_broker(settings) as broker, a_pull(broker, requests=1) as taken:
        await broker.publish(hop(broker), b"x", "id")
        await taken.until(1)
        server.kill()
        await eventually(lambda: broker.waiting == "the broker")
        await taken.deliveries[0].ack()
        server.restart()
        async with asyncio.timeout(5.0):
            while await waiting_in_hop(broker):
                await asyncio.sleep(0.01)
        assert len(taken.deliveries) == 1


# claim checks


async def test_a_body_that_is_too_large_travels_as_a_claim_check(settings: Settings) -> None:
    body = bytes(range(256)) * (12 * MIB // 256) + b"odd"
    async with a_broker(settings) as broker, a_pull(broker, requests=3) as taken:
        blobs = f"OBJ_{broker.names.blobs}"
        assert await broker.publish(hop(broker), body, "large")
        stored_bytes = await broker.stream_bytes(blobs)
        assert stored_bytes > len(body)
        assert not await broker.publish(hop(broker), body, "large")
        assert await broker.stream_bytes(blobs) == stored_bytes, "a repeat leaves nothing behind"
        await taken.until(1)
        assert taken.deliveries[0].nbytes == len(body)
        assert await taken.deliveries[0].load() == body
        await taken.deliveries[0].retry(0.01)
        await taken.until(2)
        assert await taken.deliveries[1].load() == body, "it is there until the message is settled for good"
        await taken.deliveries[1].ack()
        assert await broker.stream_bytes(blobs) == 0
        assert await waiting_in_hop(broker) == 0


async def test_the_largest_body_with_headers_goes_as_one_message(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"hop_bytes": 32 * MIB})) as broker, a_pull(broker, 1) as taken:
        headers = {"Rigflow-Failure": "x" * 3000}
        await broker.publish(hop(broker), bytes(broker.max_body), "largest", headers)
        await taken.until(1)
        assert HEADER_BLOB not in taken.deliveries[0].headers
        assert len(taken.bodies[0]) == broker.max_body
        await taken.deliveries[0].ack()


async def test_any_nats_client_can_read_a_claim_check(settings: Settings) -> None:
    body = bytes(3 * MIB + 5)
    async with a_broker(settings) as broker:
        name = await put_blob(broker, broker.names.blobs, body, metadata={"of": "a test"})
        client = await nats.connect(settings.nats)
        store = await client.jetstream().object_store(broker.names.blobs)
        assert (await store.get(name)).data == body
        await client.close()
        info = await blob_info(broker, broker.names.blobs, name)
        assert info is not None
        assert info.metadata == {"of": "a test"}


async def test_claim_checks_are_fast(settings: Settings) -> None:
    body = bytes(32 * MIB)
    async with a_broker(settings) as broker:
        started = time.perf_counter()
        name = await put_blob(broker, broker.names.blobs, body)
        put_s = time.perf_counter() - started
        started = time.perf_counter()
        assert len(await get_blob(broker, broker.names.blobs, name)) == len(body)
        got_s = time.perf_counter() - started
    print(f"put {len(body) / put_s / 1e6:.0f} MB/s, get {len(body) / got_s / 1e6:.0f} MB/s")
    assert len(body) / got_s > 40e6  # nats-py's own reader: 20e6 on an idle machine; this one 300e6


async def test_a_claim_check_that_is_gone(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        with pytest.raises(StoreError, match="nowhere is not in store"):
            await get_blob(broker, broker.names.blobs, "nowhere")
        name = await put_blob(broker, broker.names.blobs, bytes(MIB + 1))
        info = await blob_info(broker, broker.names.blobs, name)
        assert info is not None
        await broker.purge(f"OBJ_{broker.names.blobs}", f"$O.{broker.names.blobs}.C.{info.chunks_id}", up_to=1)
        with pytest.raises(StoreError, match="damaged"):
            await get_blob(broker, broker.names.blobs, name)


# key-value buckets


async def test_a_bucket_is_watched_before_it_is_there_and_across_a_restart(
    server: EmbeddedServer, settings: Settings
) -> None:
    watcher = await Broker.connect(settings)
    told: list[tuple[str, bytes]] = []

    async def watch() -> None:
        async for change in watcher.watch(watcher.names.jobs, "a.*"):
            told.append(change)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    async with a_broker(settings) as broker:
        bucket = broker.names.jobs
        assert await broker.get(bucket, "a.1") is None
        await broker.put(bucket, "a.1", b"one")
        await broker.put(bucket, "b.1", b"another")
        await eventually(lambda: told == [("a.1", b"one")])
        await broker.put(bucket, "a.1", b"two")
        await eventually(lambda: told[-1] == ("a.1", b"two"))
        assert await broker.get(bucket, "a.1") == b"two"
        assert await broker.items(bucket) == {"a.1": b"two", "b.1": b"another"}
        told.clear()
        server.kill()
        server.restart()
        await eventually(lambda: told == [("a.1", b"two")])
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await watcher.close()


async def test_a_read_goes_through_as_many_batches_as_it_takes(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await asyncio.gather(*(broker.put(broker.names.jobs, f"j.{n}", b"%d" % n) for n in range(600)))
        assert await broker.items(broker.names.jobs) == {f"j.{n}": b"%d" % n for n in range(600)}
        assert [stored async for stored in broker.read("NO_SUCH_STREAM")] == []


# away, refused, shut out


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://user:secret@127.0.0.1:1,127.0.0.1:2"])
async def test_a_broker_that_is_away_is_an_error_at_once(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerError, match="no broker at nats://127.0.0.1:1") as caught:
        await Broker.connect(Settings(nats=url))
    assert time.monotonic() - started < 2.0
    assert caught.value.exit_code is ExitCode.BROKER
    assert "Connection refused" in caught.value.what
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[x", "nats://host:port"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="not a URL of a broker"):
        await Broker.connect(Settings(nats=url))


@asynccontextmanager
async def a_guarded_server(folder: Path, users: str) -> AsyncIterator[str]:
    """A nats-server with an authorization of its own."""
    server = GuardedServer(folder, users)
    await asyncio.to_thread(server.start)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


class GuardedServer(EmbeddedServer):
    """An embedded server whose clients need credentials."""

    def __init__(self, store: Path, users: str) -> None:
        super().__init__(store)
        self._users = users

    def _config(self) -> str:
        return f"{super()._config()}\nauthorization {{ users: [ {self._users} ] }}\n"


async def test_wrong_credentials_are_an_error_at_once(tmp_path: Path) -> None:
    async with a_guarded_server(tmp_path, "{ user: me, password: right }") as url:
        for wrong in (url, url.replace("//", "//me:wrong@")):
            started = time.monotonic()
            with pytest.raises(BrokerError, match="refuses these credentials") as caught:
                await Broker.connect(Settings(nats=wrong))
            assert time.monotonic() - started < 2.0
            assert "wrong" not in str(caught.value)
        broker = await Broker.connect(Settings(nats=url.replace("//", "//me:right@")))
        await broker.close()


async def test_nkey_seeds(tmp_path: Path) -> None:
    seeds = [nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER) for number in range(2)]
    public = nkeys.from_seed(bytearray(seeds[0])).public_key.decode()
    for number, seed in enumerate(seeds):
        (tmp_path / f"{number}.nk").write_bytes(seed + b"\n")
    (tmp_path / "nonsense.nk").write_text("nonsense")
    async with a_guarded_server(tmp_path / "store", f"{{ nkey: {public} }}") as url:
        broker = await Broker.connect(Settings(nats=url, credentials=str(tmp_path / "0.nk")))
        await broker.close()
        with pytest.raises(BrokerError, match="refuses these credentials"):
            await Broker.connect(Settings(nats=url, credentials=str(tmp_path / "1.nk")))
        for name, reason in (("nonsense.nk", "not an nkey seed"), ("nowhere.nk", "No such file")):
            with pytest.raises(UsageError, match=reason):
                await Broker.connect(Settings(nats=url, credentials=str(tmp_path / name)))


async def test_what_the_broker_forbids_is_an_error_at_once(tmp_path: Path) -> None:
    users = '{ user: me, password: right, permissions: { publish: { deny: "rigflow.>" } } }'
    async with a_guarded_server(tmp_path, users) as url, a_broker(Settings(nats=url.replace("//", "//me:right@"))) as b:
        started = time.monotonic()
        with pytest.raises(BrokerError, match="forbids"):
            await b.publish(hop(b), b"", "id")
        assert time.monotonic() - started < 2.0


async def test_a_closed_connection_says_so(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.close()
        with pytest.raises(BrokerError, match="is closed"):
            await broker.publish(hop(broker), b"", "id")
