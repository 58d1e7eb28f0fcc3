"""One setting says what streams outlive: on one broker, on a cluster of three, and on the way from one to the other."""

from pathlib import Path

import pytest

from cli.pipelines import to_toml
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.server import embedded
from pipelines.streams import desired
from pipelines.topology import apply_topology, ensure_topology, plan
from schemas.errors import BrokerError, UsageError
from schemas.jobs import Priority
from schemas.settings import Durability, Settings
from tests.cli import rigflow, rigflow_process
from tests.cluster import Cluster
from tests.integration.queues import SPEC, a_broker, a_pull, queue_subject

MIB = 1 << 20


async def copies(broker: Broker) -> dict[str, int]:
    listed = await broker.api("STREAM.LIST")
    return {info["config"]["name"]: info["config"]["num_replicas"] for info in listed["streams"]}


@pytest.mark.parametrize(("durability", "synced"), [("process", False), ("power", True)])
def test_the_embedded_broker_syncs_as_the_setting_says(durability: str, synced: bool, tmp_path: Path) -> None:
    server = embedded(Settings(durability=Durability(durability), store=str(tmp_path)))
    server.start()
    try:
        assert ("sync_interval: always" in (tmp_path / "nats-server.conf").read_text()) is synced
    finally:
        server.stop()


def test_one_machine_is_no_cluster() -> None:
    with pytest.raises(UsageError, match="three brokers") as caught:
        embedded(Settings(durability=Durability.CLUSTER))
    assert "docs/operations.md" in caught.value.hint
    reported = rigflow_process("run", "scenes", __file__, RIGFLOW_DURABILITY="cluster")
    assert reported.returncode == 2
    assert "three brokers" in reported.stderr


async def test_one_broker_cannot_keep_three_copies(settings: Settings) -> None:
    wanted = settings.model_copy(update={"durability": Durability.CLUSTER})
    broker = await Broker.connect(settings)
    try:
        with pytest.raises(BrokerError, match="cannot keep 3 copies of") as caught:
            await apply_topology(broker, wanted, [SPEC])
        assert "three connected nodes" in caught.value.hint
    finally:
        await broker.close()


async def test_who_only_publishes_changes_nothing(settings: Settings) -> None:
    other = settings.model_copy(
        update={"queue_bytes": 2 * settings.queue_bytes, "results_bytes": MIB, "ack_wait_s": 7.0}
    )
    async with a_broker(settings) as broker:
        before = await plan(broker, desired(broker.names, other, [SPEC]))
        assert {change.action for change in before} == {"update"}
        await ensure_topology(broker, other, [SPEC, builtin_pipeline("scenes")])
        assert await plan(broker, desired(broker.names, settings, [SPEC])) == [], "what was there stayed"
        made = await broker.api(f"STREAM.INFO.{broker.names.work_stream('scenes', 'decode')}")
        assert made["config"]["max_bytes"] == other.queue_bytes, "what was missing was made"


@pytest.mark.slow
async def test_copies_come_and_go_under_work(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        single = Settings(nats=cluster.url, queue_bytes=4 * MIB, results_bytes=16 * MIB)
        triple = single.model_copy(update={"durability": Durability.CLUSTER})
        async with a_broker(single) as broker:
            await broker.publish(queue_subject(broker, Priority.BULK), b"work", "id")
            assert set((await copies(broker)).values()) == {1}
            assert await apply_topology(broker, triple, [SPEC]) == []
            assert set((await copies(broker)).values()) == {3}
            await ensure_topology(broker, single, [SPEC, builtin_pipeline("scenes")])
            assert set((await copies(broker)).values()) == {3}, "new streams are as durable as the fleet's"
            assert await apply_topology(broker, single, [SPEC]) == []
            assert (await copies(broker))[broker.names.work_stream("p", "decode")] == 1
            async with a_pull(broker, requests=1) as taken:
                await taken.until(1)
                assert taken.bodies == [b"work"]
        cluster.kill(cluster.nodes[0])
        late = await Broker.connect(triple)  # a list of nodes of which one is down
        await late.close()


def test_the_command_shows_the_difference_and_makes_it(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'nats = "{settings.nats}"\nqueue_bytes = {4 * MIB}\nresults_bytes = {64 * MIB}\n')
    asked = rigflow("topology", "plan", "scenes", "--settings", file)
    assert asked.returncode == 0, asked.stderr
    assert "+ RIGFLOW_WORK_scenes_decode: 4.19 MB, 1 copy" in asked.stdout
    assert "+ RIGFLOW_WORK_scenes_decode bulk" in asked.stdout
    assert rigflow("topology", "apply", "scenes", "--settings", file).returncode == 0
    asked = rigflow("topology", "plan", "scenes", "--settings", file)
    assert asked.stdout == "as it should be: nothing to change\n"
    file.write_text(file.read_text().replace(f"queue_bytes = {4 * MIB}", f"queue_bytes = {8 * MIB}\nack_wait_s = 30.0"))
    asked = rigflow("topology", "apply", "scenes", "--settings", file)
    assert "~ RIGFLOW_WORK_scenes_decode: max_bytes 4.19 MB -> 8.39 MB\n" in asked.stdout
    assert "~ RIGFLOW_WORK_scenes_decode bulk: ack_wait 10 s -> 30 s\n" in asked.stdout


async def test_the_command_refuses_to_shrink_what_holds_work(settings: Settings, tmp_path: Path) -> None:
    pipeline = tmp_path / "p.toml"
    film = SPEC.encode.model_copy(update={"format": "video"})
    pipeline.write_text(to_toml(SPEC.model_copy(update={"stage": (*SPEC.stage[:-1], film)})))
    async with a_broker(settings) as broker:
        await broker.publish(queue_subject(broker), b"work", "id")
        await broker.publish(broker.names.dead("p", "decode"), b"a dead letter", "dead")
        asked = rigflow_process(
            "topology",
            "apply",
            pipeline,
            "--nats",
            settings.nats,
            RIGFLOW_QUEUE_BYTES=str(MIB),
            RIGFLOW_DEAD_BYTES=str(MIB),
            RIGFLOW_ACK_WAIT_S="1.0",
        )
        stream = broker.names.dead_of("")
        assert asked.returncode == 1, asked.stderr
        assert f"! {stream}: max_bytes stays at {settings.dead_bytes}, because it holds 1 messages" in asked.stdout
        kept = await broker.api(f"STREAM.INFO.{stream}")
        assert kept["config"]["max_bytes"] == settings.dead_bytes
        queue = await broker.api(f"STREAM.INFO.{broker.names.work_stream('p', 'decode')}")  # when full, it refuses
        assert (queue["config"]["max_bytes"], queue["state"]["messages"]) == (MIB, 1)
        emptier = await broker.api(f"STREAM.INFO.{broker.names.work_stream('p', 'encode')}")
        assert emptier["config"]["max_bytes"] == MIB
