"""Three brokers, and kill -9 of the one that leads the streams under load: nothing that was acknowledged is lost."""

import asyncio
import contextlib
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.workloads import looped
from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from pipelines.registry import builtin_pipeline
from pipelines.topology import ensure_topology
from schemas.jobs import Priority
from schemas.settings import MIB, Durability, Settings
from tests.cluster import Cluster, leader_of
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.integration.queues import SPEC, Taken, a_broker, a_pull, queue_subject
from tests.own_pass import answers_of

pytestmark = pytest.mark.slow  # `make faults`

PUBLISHERS = 4
BODY = bytes(16_384)


class Load:
    """Publishers as fast as the broker acknowledges, and one consumer; knows what was acked and what arrived."""

    def __init__(self, publishing: Broker, consuming: Broker) -> None:
        self._publishing = publishing
        self._consuming = consuming
        self._stopping = False
        self.acked: dict[str, float] = {}
        self.arrived: dict[str, float] = {}
        self.again = 0

    async def run(self) -> None:
        """Publish until `stop`, and until all that was acked has arrived."""
        stream = self._consuming.names.work_stream("p", "decode")
        self._pull = Pull(self._consuming, stream, Priority.BULK.value, self._take)
        await self._pull.open()
        self._pull.request(2 * PUBLISHERS)
        try:
            await asyncio.gather(*(self._publish(number) for number in range(PUBLISHERS)))
            async with asyncio.timeout(30.0):
                while self.acked.keys() - self.arrived.keys():
                    await asyncio.sleep(0.05)
        finally:
            await self._pull.close()

    def stop(self) -> None:
        self._stopping = True

    async def _publish(self, number: int) -> None:
        count = 0
        while not self._stopping:
            identity = f"{number}-{count}"
            await self._publishing.publish(queue_subject(self._publishing), BODY, identity, {"Number": identity})
            self.acked[identity] = time.monotonic()
            count += 1
            await asyncio.sleep(0.02)

    async def _take(self, delivery: Delivery) -> None:
        identity = delivery.headers["Number"]
        self.again += identity in self.arrived
        self.arrived.setdefault(identity, time.monotonic())
        await delivery.ack()
        self._pull.request(1)

    def gaps_s(self, since_s: float) -> tuple[float, float]:
        """The longest time without an ack, and without an arrival, after `since_s`."""
        return _longest(self.acked, since_s), _longest(self.arrived, since_s)


def _longest(times: dict[str, float], since_s: float) -> float:
    after = sorted(at for at in times.values() if at >= since_s - 1.0)
    return max((later - earlier for earlier, later in pairwise(after)), default=0.0)


async def flows(load: Load, since_s: float) -> None:
    """Until publishing and consuming go on after `since_s`."""
    async with asyncio.timeout(30.0):
        while max(load.acked.values()) < since_s + 1.0 or max(load.arrived.values()) < since_s + 1.0:
            await asyncio.sleep(0.05)


async def kill_leader(cluster: Cluster, broker: Broker, load: Load) -> None:
    """Kill -9 the node that leads the loaded stream, wait until all goes on without it, and bring it back."""
    victim = cluster.named(await leader_of(broker, broker.names.work_stream("p", "decode")))
    since_s = time.monotonic()
    cluster.kill(victim)
    await flows(load, since_s)
    acks_s, arrivals_s = load.gaps_s(since_s)
    cluster.start(victim)
    current_s = await asyncio.to_thread(cluster.until_healthy)
    print(
        f"killed {victim.name}: no ack for {acks_s:.1f} s, no arrival for {arrivals_s:.1f} s; "
        f"back and current {current_s:.1f} s after its start"
    )
    assert acks_s < 15.0


async def jobs_under_kills(fleet: Fleet, cluster: Cluster, clip: Path, out: Path, kills: int) -> list[Path]:
    """Kill leaders while jobs run one after the other and a load flows; the jobs' results."""
    spec = builtin_pipeline("fingerprint")
    broker = await Broker.connect(fleet.settings)
    beside = await Broker.connect(fleet.settings)
    await ensure_topology(broker, fleet.settings, [SPEC])
    load = Load(broker, beside)
    loading = asyncio.create_task(load.run())
    listener = Silent()
    results: list[Path] = []

    async def jobs() -> None:
        while len(results) <= kills and not (results and killing.done()):
            (outcome,) = await fleet.run_async(spec, [clip], out / str(len(results)), listener)
            assert outcome.done is not None, outcome.error
            assert not outcome.done.failures
            results.append(outcome.target.parent / outcome.done.files[0])

    async def kill() -> None:
        for _ in range(kills):
            seen = listener.parts
            while listener.parts == seen and not running.done():
                await asyncio.sleep(0.02)
            await kill_leader(cluster, broker, load)

    try:
        running = asyncio.create_task(jobs())
        killing = asyncio.create_task(kill())
        await asyncio.gather(running, killing)
        load.stop()
        await loading
    finally:
        for task in (loading, running, killing):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
        await broker.close()
        await beside.close()
    lost = load.acked.keys() - load.arrived.keys()
    print(
        f"{kills} kills, {len(results)} jobs, {len(load.acked)} acked, {len(lost)} lost, {load.again} delivered again"
    )
    assert not lost
    return results


def outlive(kills: int, repeats: int, folder: Path) -> None:
    clip = looped(folder / "clip.mp4", repeats)
    times, descriptors = answers_of(clip, builtin_pipeline("fingerprint"))
    with (
        Cluster(folder) as cluster,
        Fleet(ONE_WORKER, folder / "cache", nats=cluster.url, durability="cluster", ack_wait_s=3.0) as fleet,
    ):
        results = asyncio.run(jobs_under_kills(fleet, cluster, clip, folder, kills))
    for result in results:
        with np.load(result) as found:
            np.testing.assert_array_equal(found["times"], times)
            np.testing.assert_array_equal(found["descriptor"], descriptors)


def test_a_dead_leader_costs_seconds_and_nothing_else(tmp_path: Path) -> None:
    outlive(kills=1, repeats=20, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_dead_leaders_one_after_the_other(tmp_path: Path) -> None:
    outlive(kills=3, repeats=50, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("reader", [False, True], ids=["durable", "reader"])
async def test_what_was_asked_for_arrives_though_no_message_says_that_the_leader_died(
    reader: bool, tmp_path: Path
) -> None:
    """Requests that stand at a dead node are lost in silence: the connection, to another node, is well."""
    with Cluster(tmp_path) as cluster:
        settings = Settings(
            nats=cluster.url, durability=Durability.CLUSTER, queue_bytes=4 * MIB, results_bytes=16 * MIB
        )
        async with a_broker(settings) as broker:
            stream = broker.names.work_stream("p", "decode")
            info = await broker.api(f"CONSUMER.INFO.{stream}.bulk")
            subject, consumer = queue_subject(broker), Priority.BULK.value
            other = next(node for node in cluster.nodes if node.name != info["cluster"]["leader"])
            if reader:
                stream, subject, consumer = broker.names.results_stream, "rigflow.results.main.p.job", "reader"
        elsewhere = await Broker.connect(settings.model_copy(update={"nats": other.url}))
        if reader:
            info = {"cluster": {"leader": other.name}}
            while info["cluster"]["leader"] == other.name:  # the cluster puts it anywhere
                await elsewhere.delete_consumer(stream, consumer)
                await elsewhere.create_reader(stream, consumer, [subject])
                info = await elsewhere.api(f"CONSUMER.INFO.{stream}.{consumer}")
        victim = cluster.named(info["cluster"]["leader"])
        taken = Taken()
        pull = Pull(elsewhere, stream, consumer, taken.take)
        await pull.open()
        pull.request(4)
        await elsewhere.connection.flush()
        cluster.kill(victim)
        killed_s = time.monotonic()
        await elsewhere.publish(subject, b"work", "id")
        await taken.until(1, within_s=25.0)  # a request stands for 30 s
        print(f"arrived {time.monotonic() - killed_s:.1f} s after the kill")
        await pull.close()
        await elsewhere.close()


@pytest.mark.slow
async def test_all_three_at_once_and_then_one_with_an_empty_disk(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        settings = Settings(
            nats=cluster.url, durability=Durability.CLUSTER, queue_bytes=4 * MIB, results_bytes=16 * MIB
        )
        async with a_broker(settings) as broker:
            for number in range(100):
                await broker.publish(queue_subject(broker), b"%d" % number, str(number))
            for node in cluster.nodes:
                cluster.kill(node)
            for node in cluster.nodes:
                cluster.start(node)
            started_s = time.monotonic()
            await broker.publish(queue_subject(broker), b"100", "100")
            print(f"all three killed: an ack {time.monotonic() - started_s:.1f} s after their start")
            await asyncio.to_thread(cluster.until_healthy)
            emptied, other, _ = cluster.nodes
            cluster.kill(emptied)
            shutil.rmtree(emptied.folder)
            cluster.start(emptied)
            print(f"an empty node has everything after {await asyncio.to_thread(cluster.until_healthy):.1f} s")
            cluster.kill(other)
            await broker.publish(queue_subject(broker), b"101", "101")
            async with a_pull(broker, requests=102) as taken:
                await taken.until(102, within_s=30.0)
                assert sorted(map(int, taken.bodies)) == list(range(102))
