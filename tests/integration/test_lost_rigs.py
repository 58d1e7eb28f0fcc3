"""A rig that was killed is lost in the status, one that was stopped is stopped, since when they ended."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

from pipelines.broker import Broker
from tests.cli import rigflow
from tests.fleet import Fleet
from tests.rig import Rig, eventually


def rigs_of(fleet: Fleet) -> dict[str, Any]:
    ended = rigflow("status", "--json", "--nats", fleet.settings.nats)
    return {rig["rig"]: rig for rig in json.loads(ended.stdout)["rigs"]}


async def forget_status(fleet: Fleet, rig: str) -> None:
    """What the broker does ten seconds after a rig's last status."""
    async with Broker.connected(fleet.settings, "test") as broker:
        await broker.delete_key(broker.names.rigs, f"rig.{rig}")


def test_rigs_that_ended_are_known(tmp_path: Path) -> None:
    began = time.time()
    with Fleet((), tmp_path / "cache") as fleet:
        assert rigflow("topology", "apply", "fingerprint", "--nats", fleet.settings.nats).returncode == 0
        with Rig(fleet, tmp_path, "first", 1) as first, Rig(fleet, tmp_path, "second", 1) as second:
            eventually(lambda: set(rigs_of(fleet)) == {"first", "second"})
            assert [rig["since_s"] for rig in rigs_of(fleet).values()] == [0, 0]
            first.end(signal.SIGKILL)
            second.end(signal.SIGTERM)
        for name in ("first", "second"):
            asyncio.run(forget_status(fleet, name))
        ended = rigs_of(fleet)
        assert {name: rig["state"] for name, rig in ended.items()} == {"first": "lost", "second": "stopped"}
        assert all(began < rig["since_s"] < time.time() for rig in ended.values())
        shown = rigflow("status", "--nats", fleet.settings.nats).stdout
    assert "lost since " in shown
    assert "stopped since " in shown
