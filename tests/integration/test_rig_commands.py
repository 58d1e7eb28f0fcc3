"""Orders to rigs by the command line, the status of rigs that ended, and stages that no pipeline has."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

from pipelines.broker import Broker
from pipelines.fleet_view import known_fleet
from pipelines.server import EmbeddedServer
from schemas.errors import ExitCode
from tests.cli import rigflow, rigflow_process
from tests.fleet import Fleet
from tests.rig import Rig, eventually


def status_of(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rigflow("status", "--json", "--nats", fleet.settings.nats).stdout)
    return found


def rigs_of(fleet: Fleet) -> dict[str, Any]:
    return {rig["rig"]: rig for rig in status_of(fleet)["rigs"]}


def worker_states(fleet: Fleet) -> dict[str, str]:
    return {worker["worker"]: worker["state"] for worker in status_of(fleet)["workers"]}


async def forget_status(fleet: Fleet, rig: str) -> None:
    """What the broker does ten seconds after a rig's last status."""
    async with Broker.connected(fleet.settings, "test") as broker:
        await broker.delete_key(broker.names.rigs, f"rig.{rig}")


async def rigs_taking_work(fleet: Fleet) -> list[str]:
    async with Broker.connected(fleet.settings, "test") as broker:
        return [rig.name for rig in (await known_fleet(broker, taking_work=True)).rigs]


def test_orders_and_what_is_known_of_rigs_that_ended(tmp_path: Path) -> None:
    began = time.time()
    with Fleet((), tmp_path / "cache") as fleet:
        at = ("--nats", fleet.settings.nats)
        assert rigflow("topology", "apply", "fingerprint", *at).returncode == 0
        with Rig(fleet, tmp_path, "first", 1) as first, Rig(fleet, tmp_path, "second", 1) as second:
            eventually(lambda: worker_states(fleet) == {"first-cpu0": "idle", "second-cpu0": "idle"})
            assert [rig["since_s"] for rig in rigs_of(fleet).values()] == [0, 0]
            ordered = rigflow("rig", "cordon", "first", *at)
            assert ordered.stdout == "first: takes no more work\n"
            assert json.loads(rigflow("worker", "drain", "second-cpu0", "--json", *at).stdout)[0]["name"]
            assert set(worker_states(fleet).values()) == {"cordoned"}, "the command waits for its workers"
            assert rigflow("rig", "resume", "first", *at).stdout == "first: takes work\n"
            eventually(lambda: worker_states(fleet) == {"first-cpu0": "idle", "second-cpu0": "cordoned"})
            assert asyncio.run(rigs_taking_work(fleet)) == ["first"], "a placement does not count on the other"
            unknown = rigflow("rig", "drain", "[/third", *at)
            assert unknown.stderr == "rigflow: there is no rig '[/third': known are first, second\n"
            assert rigflow("rig", "forget", "first", *at).stderr == (
                "rigflow: rig first is working: stop it first, by SIGTERM\n"
            )
            first.end(signal.SIGKILL)
            second.end(signal.SIGTERM)
        for name in ("first", "second"):
            asyncio.run(forget_status(fleet, name))
        ended = rigs_of(fleet)
        assert {name: rig["state"] for name, rig in ended.items()} == {"first": "lost", "second": "stopped"}
        assert all(began < rig["since_s"] < time.time() for rig in ended.values())
        shown = rigflow("status", *at).stdout
        assert rigflow("rig", "forget", "first", *at).stdout == "first: is forgotten\n"
        assert set(rigs_of(fleet)) == {"second"}
    assert "lost since " in shown
    assert "stopped since " in shown


def test_a_stage_that_no_pipeline_has_is_an_error_at_the_start(server: EmbeddedServer, tmp_path: Path) -> None:
    config = tmp_path / "rig.toml"
    config.write_text('[[worker]]\nstages = ["decode", "resise"]\n')
    ended = rigflow_process("rig", "--config", config, "--nats", server.url, "--metrics", "127.0.0.1:0")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.splitlines()[-1] == (f"rigflow: {config}: no pipeline has a stage resise: did you mean resize?")
    ended = rigflow("worker", "--stages", "xyz,decode", "--nats", server.url)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("rigflow: --stages: no pipeline has a stage xyz: publish a pipeline that has it")
    assert rigflow("rig", "--nats", server.url, "cordon", "a").stderr == (
        "rigflow: options of rigflow rig stand before cordon: put them behind: rigflow rig cordon NAME --nats URL\n"
    )
