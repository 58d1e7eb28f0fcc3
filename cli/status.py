"""`rigflow status`: shows what a fleet does now."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.interrupts import display, run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from cli.status_devices import device_of, devices
from cli.status_gpus import care_rows
from cli.text import age, cell, cells, list_of, moment, one_line, say_json, size, stdout, table
from schemas.errors import ExitCode
from schemas.states import ENDED, LOST, STOPPED
from schemas.text import count, rate, without_passwords

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

    from pipelines.status import FleetStatus, QueueStatus
    from schemas.settings import Settings

SILENT_S = 6.0  # three reports missed: its process hangs, or its machine is gone
EVERY_S = 2.0  # workers report every 2 s
OLD_S = 4.0  # without an answer for so long, what is shown is old


@ends_well
def status(
    nats: FleetUrl = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 s, until Ctrl-C.")] = False,
    as_json: Json = False,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Show a fleet's queues and workers.

    Also its results, its dead letters, and the bottleneck with its figures.

    Example: rigflow status --nats nats://rig1:4222 --watch
    """
    settings = fleet_from(settings_file, nats=nats, credentials=credentials)
    run_async(_status(settings, watch, as_json))
    return ExitCode.OK


async def _status(settings: "Settings", watch: bool, as_json: bool) -> None:
    from pipelines.broker import Broker
    from pipelines.status import fleet_status

    async with Broker.connected(settings, name="rigflow-status") as broker:
        if watch and not as_json:
            await _watch(broker, settings.nats)
            return
        while True:
            fleet = await fleet_status(broker)
            if as_json:
                _print_json(fleet, lines=watch)
            else:
                _print(_console(), fleet, settings.nats)
            if not watch:
                return
            await asyncio.sleep(EVERY_S)


def _print_json(fleet: "FleetStatus", lines: bool) -> None:
    """Print one json object; with `lines` in one line, for programs that read one after the other."""
    from dataclasses import asdict

    from pipelines.bottleneck import bottleneck

    status = asdict(fleet) | {"bottleneck": bottleneck(fleet)}
    say_json(status, lines)


async def _silences(asking: "asyncio.Task[FleetStatus]") -> AsyncIterator[str]:
    """A sentence every `OLD_S` for as long as the broker does not answer."""
    asked_s = time.monotonic()
    try:
        while not (await asyncio.wait([asking], timeout=OLD_S))[0]:
            yield f"The broker has not answered for {time.monotonic() - asked_s:.0f} s."
    finally:
        asking.cancel()


async def _watch(broker: Any, url: str) -> None:
    """Show the status every 2 s in place; without a terminal, print one below the other."""
    from rich.console import Group
    from rich.live import Live

    from pipelines.status import fleet_status

    console = _console()
    live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
    with display(live.stop), live:
        fleet: FleetStatus | None = None
        while True:
            async for silent in _silences(asking := asyncio.create_task(fleet_status(broker))):
                if not console.is_terminal:
                    console.print(silent)
                elif fleet is not None:
                    live.update(Group(f"{silent} Before that:", "", render(fleet, url)), refresh=True)
                else:
                    live.update(silent, refresh=True)
            fleet = asking.result()
            if console.is_terminal:
                live.update(
                    Group(verdict(fleet), "", render(fleet, url)), refresh=True
                )  # a window of few lines cuts the end
            else:
                console.print(time.strftime("%H:%M:%S"))
                _print(console, fleet, url)
                console.print()
            await asyncio.sleep(EVERY_S)


def _print(console: "Console", fleet: "FleetStatus", url: str) -> None:
    console.print(render(fleet, url), "", sep="\n")
    console.print(verdict(fleet), soft_wrap=not console.is_terminal)  # programs search for the sentence


def _console() -> "Console":
    return stdout()


def render(fleet: "FleetStatus", url: str) -> "Group":
    """A fleet's status for people."""
    from rich.console import Group

    known = ", ".join(fleet.pipelines) or "none yet; `rigflow up` and `rigflow publish` bring them"
    pairs = table("", "")
    pairs.show_header = False
    for name, value in (
        ("broker", f"{without_passwords(url)}, {size(fleet.store_bytes)} stored"),
        ("pipelines", known),
        ("results", _held(fleet.results.messages, fleet.results.nbytes, fleet.results.limit_bytes)),
        ("large bodies", _held(fleet.claims.messages, fleet.claims.nbytes, fleet.claims.limit_bytes)),
        ("dead letters", f"{fleet.dead.messages:,}, see `rigflow dead list`" if fleet.dead.messages else "none"),
    ):
        pairs.add_row(cell(name, "bold"), cell(value, "red" if name == "dead letters" and fleet.dead.messages else ""))
    parts: list[RenderableType] = [pairs, "", _queues(fleet), "", _workers(fleet)]
    parts += [*_ends(fleet), *_unready(fleet), *_declined(fleet), *devices(fleet)]
    if fleet.rigs:
        parts += ["", _rigs(fleet.rigs), *care_rows(fleet.rigs)]
    return Group(*parts)


def verdict(fleet: "FleetStatus") -> "Text":
    """The sentence that says what is slow."""
    from pipelines.bottleneck import bottleneck

    return cell(bottleneck(fleet), "bold")


def _held(messages: int, nbytes: int, limit_bytes: int) -> str:
    return f"{size(nbytes)} of {size(limit_bytes)}, {count(messages, 'message')}" if messages else "none kept"


def _queues(fleet: "FleetStatus") -> "RenderableType":
    """A row for each queue that holds something, and what the stage behind it does."""
    busy = [queue for queue in fleet.queues if queue.stream.messages]
    if not busy:
        count = len(fleet.queues)
        return cells(("queue", "bold"), (f"  all {count} are empty" if count else "  none yet", ""))
    titles = ("queue", "interactive", "bulk", "held", "again", "size", "oldest", "frames/s")
    return list_of(titles, [_queue_row(fleet, queue) for queue in busy], left=1, unless={"again": "0"})


def _queue_row(fleet: "FleetStatus", queue: "QueueStatus") -> "list[RenderableType]":
    from schemas.jobs import Priority

    priorities = queue.priorities
    waiting = [priorities[each].waiting if each in priorities else 0 for each in (Priority.INTERACTIVE, Priority.BULK)]
    again = sum(priority.redelivered for priority in priorities.values())
    return [
        one_line(f"{queue.pipeline} {queue.stage}".strip()),
        *(f"{count:,}" for count in waiting),
        f"{sum(priority.in_flight for priority in priorities.values()):,}",
        cell(f"{again:,}", "yellow" if again else ""),
        size(queue.stream.nbytes),
        age(queue.stream.oldest_s, units=1),
        rate(_rate(fleet.workers, queue)),
    ]


def _rate(workers: Sequence[Mapping[str, Any]], queue: "QueueStatus") -> float:
    done = (of for worker in workers for of in worker["done"])
    of_queue = (queue.pipeline, queue.stage)
    return sum(float(of["frames_per_s"]) for of in done if (of["pipeline"], of["stage"]) == of_queue)


def _workers(fleet: "FleetStatus") -> "RenderableType":
    """A row for each worker that reported lately, and for each that its rig has given up or starts again."""
    gone = _gone(fleet)
    if not fleet.workers and not gone:
        start = "; start some with `rigflow rig`, `rigflow worker` or `rigflow up`"
        return cells(("worker", "bold"), ("  none", "yellow"), (start, ""))
    titles = ("worker", "device", "stages", "state", "held", "busy", "frames/s", "failed", "memory")
    rows = [_worker_row(worker) for worker in fleet.workers if worker["worker"] not in gone]
    rows += [_gone_row(name, worker) for name, worker in gone.items()]
    return list_of(titles, rows, left=4, unless={"failed": "0"}, entire=("state",), named=("worker",))


def _worker_row(worker: Mapping[str, Any]) -> "list[RenderableType]":
    return [
        one_line(worker["worker"]),
        one_line(device_of(worker)),
        one_line(" ".join(worker["stages"])),
        _state(worker),
        f"{worker['in_flight']:,}",
        f"{min(1.0, sum(of['busy'] for of in worker['done'])):.0%}",
        rate(max((of["frames_per_s"] for of in worker["done"]), default=0.0)),
        cell(f"{worker['failures']:,}", "red" if worker["failures"] else ""),
        size(worker["rss_bytes"]),
    ]


def _gone_row(name: str, worker: Mapping[str, Any]) -> "list[RenderableType]":
    return [
        *map(one_line, (name, worker["device"], " ".join(worker["stages"]))),
        cell(worker["state"], "red"),
        *[""] * 5,
    ]


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


def _state(status: Mapping[str, Any]) -> "Text":
    """The state of a worker or a rig, since when a rig has ended, or for how long there was no status."""
    if status["state"] in ENDED:
        text = f"{status['state']} since {moment(status['at_s'])}"
        return cell(text, "red" if status["state"] == LOST else "")
    silent_s = time.time() - status["at_s"]
    return cell(f"silent for {silent_s:.0f} s", "yellow") if silent_s > SILENT_S else cell(status["state"])


def _rigs(rigs: Sequence[Mapping[str, Any]]) -> "RenderableType":
    titles = ("rig", "host", "state", "metrics", "workers", "ready", "deaths")
    return list_of(titles, map(_rig_row, rigs), left=4, unless={}, entire=("state", "metrics"), named=("rig",))


def _metrics(rig: Mapping[str, Any]) -> str:
    """Where a rig serves its metrics; empty for one that ended."""
    return "" if rig["state"] in ENDED else str(rig["metrics"] or "none")


def _rig_row(rig: Mapping[str, Any]) -> "list[RenderableType]":
    workers = rig["workers"]
    ready = sum(not worker["why"] for worker in workers) if rig["state"] not in ENDED else 0
    deaths = sum(worker["deaths"] for worker in workers)
    return [
        *(one_line(rig["rig"]), one_line(rig["host"]), _state(rig), one_line(_metrics(rig))),
        f"{len(workers)}",
        cell(f"{ready}", "" if ready == len(workers) or rig["state"] == STOPPED else "yellow"),
        cell(f"{deaths}", "yellow" if deaths else ""),
    ]
