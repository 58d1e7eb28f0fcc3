"""What `rigflow status` shows of the devices of a fleet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.text import cells

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipelines.status import FleetStatus


def devices(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line for each device that was measured: what it can do. Where those of one name differ, with their rigs."""
    known: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for worker in fleet.workers:
        if profile := worker.get("profile", ""):
            known.setdefault(device_of(worker), {}).setdefault(profile, []).append(worker)
    return [
        cells(
            (device, "bold"), (f" of {_places(workers, profiles)}" if len(profiles) > 1 else "", ""), (f"  {text}", "")
        )
        for device, profiles in known.items()
        for text, workers in profiles.items()
    ]


def _places(workers: Sequence[Mapping[str, Any]], profiles: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The rigs of workers; of a rig that has devices with several of these profiles, the workers."""
    lines = Counter(rig for each in profiles.values() for rig in set(map(_rig, each)))
    names = (str(worker["worker"]) if lines[rig := _rig(worker)] > 1 else rig for worker in workers)
    return ", ".join(dict.fromkeys(names))


def _rig(worker: Mapping[str, Any]) -> str:
    """The rig of a worker; without one, its host."""
    return str(worker.get("rig") or worker.get("host") or worker["worker"])


def device_of(worker: Mapping[str, Any]) -> str:
    """The name of a worker's GPU, or `cpu`."""
    return str(worker.get("gpu", {}).get("name") or worker["device"]).removeprefix("NVIDIA ")
