"""What `rigflow status` shows of workers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cli.status_devices import device_of
from cli.text import cell, cells, moment, one_line
from schemas.states import ENDED, LOST
from schemas.text import rate, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from cli.tables import Given
    from pipelines.status import FleetStatus

SILENT_S = 6.0  # three reports missed: its process hangs, or its machine is gone


def workers(fleet: "FleetStatus") -> "RenderableType":
    """A row for each worker that reported lately, and for each that its rig has given up or starts again."""
    from cli.tables import list_of

    gone = _gone(fleet)
    if not fleet.workers and not gone:
        start = "; start some with `rigflow rig`, `rigflow worker` or `rigflow up`"
        return cells(("worker", "bold"), ("  none", "yellow"), (start, ""))
    titles = ("worker", "device", "stages", "state", "held", "busy", "frames/s", "failed", "memory")
    rows = [_worker_row(worker, fleet.now_s) for worker in fleet.workers if worker["worker"] not in gone]
    rows += [_gone_row(name, worker) for name, worker in gone.items()]
    return list_of(titles, rows, left=4, unless={"failed": "0"}, named=("worker",))


def _worker_row(worker: Mapping[str, Any], now_s: float) -> "list[Given]":
    return [
        one_line(worker["worker"]),
        one_line(device_of(worker)),
        one_line("auto" if worker.get("auto") else " ".join(worker["stages"])),
        state_of(worker, now_s),
        f"{worker['in_flight']:,}",
        f"{min(1.0, sum(of['busy'] for of in worker['done'])):.0%}",
        rate(max((of["frames_per_s"] for of in worker["done"]), default=0.0)),
        cell(f"{worker['failures']:,}", "red" if worker["failures"] else ""),
        size(worker["rss_bytes"]),
    ]


def _gone_row(name: str, worker: Mapping[str, Any]) -> "list[Given]":
    return [
        *map(one_line, (name, worker.get("device", ""), " ".join(worker["stages"]))),
        cell(worker["state"], "red"),
        *[""] * 5,
    ]


def notes(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line each on what keeps workers from work."""
    return [*_ends(fleet), *_unready(fleet), *_declined(fleet)]


def _ends(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line for each worker without a process: how its last one ended."""
    return [
        cells((f"worker {name} is {worker['state']}", "red"), (f", last exit: {worker['last_exit']}", ""))
        for name, worker in _gone(fleet).items()
    ]


def _unready(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line for each reason for which workers are not ready: models that are being loaded, or that cannot be."""
    gone = _gone(fleet)
    ready = ((worker.get("why", ""), worker["worker"]) for worker in fleet.workers if worker["worker"] not in gone)
    return [_warning(f"not ready: {names}", why) for why, names in _grouped(ready) if why]


def _declined(fleet: "FleetStatus") -> "list[RenderableType]":
    """A line for each pipeline that some workers take no work of, and for each reason."""
    each = ((declined, worker["worker"]) for worker in fleet.workers for declined in worker.get("declined", {}).items())
    return [
        _warning(f"no work of pipeline {pipeline} goes to {names}", why) for (pipeline, why), names in _grouped(each)
    ]


def _grouped(reasons: Iterable[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Each reason once, with the names of its workers."""
    workers: dict[Any, list[str]] = {}
    for reason, worker in reasons:
        workers.setdefault(reason, []).append(worker)
    return [(reason, ", ".join(names)) for reason, names in sorted(workers.items())]


def _warning(what: str, why: str) -> "RenderableType":
    return cell(what, style="yellow") + cell(f": {why}")


def _gone(fleet: "FleetStatus") -> dict[str, Mapping[str, Any]]:
    """Workers without a process, by the status of their rig: their own last status is still stored."""
    running = (rig for rig in fleet.rigs if rig["state"] not in ENDED)
    workers = (worker for rig in running for worker in rig["workers"])
    return {worker["worker"]: worker for worker in workers if worker["state"] in ("given up", "down")}


def state_of(status: Mapping[str, Any], now_s: float) -> "Text":
    """The state of a worker or a rig, since when a rig has ended, or for how long there was no status."""
    if status["state"] in ENDED:
        text = f"{status['state']} since {moment(status['at_s'])}"
        return cell(text, "red" if status["state"] == LOST else "")
    silent_s = now_s - status["at_s"]
    return cell(f"silent for {silent_s:.0f} s", "yellow") if silent_s > SILENT_S else cell(status["state"])
