"""Rigs that ended stay in the status of a fleet: `stopped` or `lost`, since their last status."""

import json
import time

import pytest
from rich.console import Console

from cli.status import render
from pipelines.status import FleetStatus, StreamStatus, known_rigs


def reported(name: str, state: str, at_s: float) -> dict[str, bytes]:
    worker = {"worker": f"{name}-cpu0", "device": "cpu", "stages": ["all"], "state": "down", "why": "x", "deaths": 0}
    status = {"rig": name, "host": "h", "state": state, "at_s": at_s, "metrics": "", "workers": [worker]}
    worker["last_exit"] = ""
    return {f"rig.{name}": json.dumps(status).encode()}


def test_a_rig_that_runs_is_as_it_says_and_the_others_ended_at_their_last_status() -> None:
    found = reported("b", "working", 20.0) | reported("d", "stopped", 21.0)
    seen = (
        reported("a", "stopped", 5.0)
        | reported("b", "working", 15.0)
        | reported("c", "draining", 7.0)
        | reported("d", "working", 12.0)
    )
    states = [(rig["rig"], rig["state"], rig["since_s"]) for rig in known_rigs(found, seen)]
    assert states == [("a", "stopped", 5.0), ("b", "working", 0.0), ("c", "lost", 7.0), ("d", "stopped", 21.0)]


@pytest.mark.parametrize(("columns", "ago_s"), [(80, 0.0), (200, 3 * 86400.0)])
def test_the_table_says_since_when(columns: int, ago_s: float) -> None:
    """With the date, unless that is today; its workers, of which none runs, are no workers of the fleet."""
    at_s = time.time() - ago_s
    seen = reported("rig-1", "working", at_s) | reported("rig-2", "stopped", at_s)
    nothing = StreamStatus()
    fleet = FleetStatus(0, {}, [], [], known_rigs({}, seen), nothing, nothing)
    console = Console(width=columns, record=True, color_system=None)
    console.print(render(fleet, "nats://127.0.0.1:4222"))
    text = console.export_text()
    form = "%H:%M:%S" if not ago_s else "%Y-%m-%d %H:%M:%S"
    since = time.strftime(form, time.localtime(at_s))
    assert f"lost since {since}" in text
    assert f"stopped since {since}" in text
    assert "rig-1-cpu0" not in text
