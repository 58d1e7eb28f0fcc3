"""What `rigflow status` shows of the devices of a fleet."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cli.text import cells

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipelines.status import FleetStatus


def devices(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line for each device that was measured: what it can do."""
    known = dict.fromkeys((device_of(worker), worker.get("profile", "")) for worker in fleet.workers)
    return [cells((device, "bold"), (f"  {profile}", "")) for device, profile in known if profile]


def device_of(worker: Mapping[str, Any]) -> str:
    """The name of a worker's GPU, or `cpu`."""
    return str(worker.get("gpu", {}).get("name") or worker["device"]).removeprefix("NVIDIA ")
