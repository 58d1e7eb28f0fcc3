"""`rigflow status`: shows what a fleet does now."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.interrupts import display, run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from cli.status_devices import devices
from cli.status_gpus import care_rows
from cli.status_roles import placed
from cli.status_workers import notes, state_of, workers
from cli.text import age, cell, cells, one_line, say_json, stdout
from schemas.errors import ExitCode
from schemas.states import ENDED, STOPPED
from schemas.text import count, rate, size, without_passwords

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

    from cli.tables import Given
    from pipelines.status import FleetStatus, QueueStatus
    from schemas.settings import Settings

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

    from cli.tables import paragraphs

    known = ", ".join(fleet.pipelines) or "none yet; `rigflow up` and `rigflow publish` bring them"
    said = (
        ("broker", f"{without_passwords(url)}, {size(fleet.store_bytes)} stored"),
        ("pipelines", known),
        ("results", _held(fleet.results.messages, fleet.results.nbytes, fleet.results.limit_bytes)),
        ("large bodies", _held(fleet.claims.messages, fleet.claims.nbytes, fleet.claims.limit_bytes)),
        ("dead letters", f"{fleet.dead.messages:,}, see `rigflow dead list`" if fleet.dead.messages else "none"),
    )
    red = "dead letters" if fleet.dead.messages else ""
    pairs = paragraphs((cell(name, "bold"), cell(value, "red" if name == red else "")) for name, value in said)
    parts: list[RenderableType] = [pairs, "", _queues(fleet), "", workers(fleet)]
    parts += [*notes(fleet), *placed(fleet.workers), *devices(fleet)]
    if fleet.rigs:
        parts += ["", _rigs(fleet.rigs, fleet.now_s), *care_rows(fleet.rigs)]
    return Group(*parts)


def verdict(fleet: "FleetStatus") -> "Text":
    """The sentence that says what is slow."""
    from pipelines.bottleneck import bottleneck

    return cell(bottleneck(fleet), "bold")


def _held(messages: int, nbytes: int, limit_bytes: int) -> str:
    return f"{size(nbytes)} of {size(limit_bytes)}, {count(messages, 'message')}" if messages else "none kept"


def _queues(fleet: "FleetStatus") -> "RenderableType":
    """A row for each queue that holds something, and what the stage behind it does."""
    from cli.tables import list_of

    busy = [queue for queue in fleet.queues if queue.stream.messages]
    if not busy:
        count = len(fleet.queues)
        return cells(("queue", "bold"), (f"  all {count} are empty" if count else "  none yet", ""))
    titles = ("queue", "interactive", "bulk", "held", "again", "size", "oldest", "frames/s")
    return list_of(
        titles, [_queue_row(fleet, queue) for queue in busy], left=1, unless={"again": "0"}, named=("queue",)
    )


def _queue_row(fleet: "FleetStatus", queue: "QueueStatus") -> "list[Given]":
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


def _rigs(rigs: Sequence[Mapping[str, Any]], now_s: float) -> "RenderableType":
    from cli.tables import list_of

    titles = ("rig", "host", "state", "metrics", "workers", "ready", "deaths")
    rows = (_rig_row(rig, now_s) for rig in rigs)
    return list_of(titles, rows, left=4, named=("rig",))


def _metrics(rig: Mapping[str, Any]) -> str:
    """Where a rig serves its metrics; empty for one that ended."""
    return "" if rig["state"] in ENDED else str(rig["metrics"] or "none")


def _rig_row(rig: Mapping[str, Any], now_s: float) -> "list[Given]":
    workers = rig["workers"]
    ready = sum(not worker["why"] for worker in workers) if rig["state"] not in ENDED else 0
    deaths = sum(worker["deaths"] for worker in workers)
    return [
        *(one_line(rig["rig"]), one_line(rig["host"]), state_of(rig, now_s), _metrics(rig)),
        f"{len(workers)}",
        cell(f"{ready}", "" if ready == len(workers) or rig["state"] == STOPPED else "yellow"),
        cell(f"{deaths}", "yellow" if deaths else ""),
    ]
