"""What the status shows of the GPUs of rigs."""

import io
from typing import Any

from rich.console import Console, Group

from cli.status_gpus import care_rows


def shown(*rigs: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(Group(*care_rows(rigs)))
    return out.getvalue()


GPU = {
    "gpu": "3",
    "name": "NVIDIA P106-100",
    "temperature_celsius": 91.0,
    "power_watts": 88.4,
    "power_limit_watts": 90.0,
}


def test_gpus_energy_and_troubles_are_shown() -> None:
    energy = {"joules": 7.2e6, "per_kwh": {"frames": 1.5e6, "device-seconds": 3e4}}
    gpu = {**GPU, "xids": {"79": 1}}
    text = shown(
        {"rig": "r7", "state": "working", "gpus": [gpu], "energy": energy, "troubles": ["GPU x is out of work"]}
    )
    for word in ("r7", "P106-100", "91 °C", "88 W", "90 W", "79 (1)", "2.000 kWh", "1,500,000", "30,000"):
        assert word in text
    assert "rig r7: GPU x is out of work" in text
    assert "fan" not in text


def test_rigs_without_gpus_and_those_that_ended_show_nothing() -> None:
    assert shown({"rig": "a", "state": "working"}, {"rig": "b", "state": "lost", "gpus": [GPU]}) == ""
