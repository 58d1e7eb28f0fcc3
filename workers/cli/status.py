"""`rigflow status`: what a fleet does now."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import ExitCode
from schemas.messages import Lane
from schemas.settings import Settings
from workers.cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.status import FleetStatus, QueueStatus

SILENT_S = 6.0  # three reports missed: its process hangs, or its machine is gone


@ends_well
def status(
    nats: FleetUrl = None,
    as_json: Json = False,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Show a fleet's queues, workers, results and dead letters.

    Example: rigflow status --nats nats://rig1:4222
    """
    settings = fleet_from(settings_file, nats=nats, credentials=credentials)
    fleet = asyncio.run(_ask(settings))
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(fleet), indent=2))
    else:
        show(fleet, settings.nats)
    return ExitCode.OK


async def _ask(settings: Settings) -> "FleetStatus":
    from pipelines.broker import Broker
    from pipelines.status import fleet_status

    broker = await Broker.connect(settings, name="rigflow-status")
    try:
        return await fleet_status(broker)
    finally:
        await broker.close()


def show(fleet: "FleetStatus", url: str) -> None:
    """Print a fleet's status for people."""
    from rich.console import Console

    console = Console(highlight=False)
    known = ", ".join(fleet.pipelines) or "none yet; `rigflow up` and `rigflow publish` bring them"
    pairs = _table("", "")
    pairs.show_header = False
    for name, value in (
        ("broker", f"{url}, {size(fleet.store_bytes)} stored"),
        ("pipelines", known),
        ("results", _held(fleet.results.messages, fleet.results.nbytes, fleet.results.limit_bytes)),
        ("dead letters", f"[red]{fleet.dead.messages}[/], see `rigflow dead list`" if fleet.dead.messages else "none"),
    ):
        pairs.add_row(f"[bold]{name}[/]", value)
    console.print(pairs, "", _queues(fleet.queues), "", _workers(fleet), sep="\n")


def _held(messages: int, nbytes: int, limit_bytes: int) -> str:
    return f"{size(nbytes)} of {size(limit_bytes)}, {messages:,} messages" if messages else "none kept"


def _queues(queues: "Sequence[QueueStatus]") -> "Table | str":
    """A row for each queue that holds something."""
    busy = [queue for queue in queues if queue.stream.messages]
    if not busy:
        return f"[bold]queue[/]  all {len(queues)} are empty" if queues else "[bold]queue[/]  none yet"
    table = _table("queue", "interactive", "bulk", "in flight", "again", "size", "oldest", left=1)
    for queue in busy:
        lanes = queue.lanes.values()
        waiting = [queue.lanes[lane].waiting if lane in queue.lanes else 0 for lane in (Lane.INTERACTIVE, Lane.BULK)]
        again = sum(lane.redelivered for lane in lanes)
        table.add_row(
            f"{queue.pipeline} {queue.stage}".strip(),
            *(f"{count:,}" for count in waiting),
            f"{sum(lane.in_flight for lane in lanes):,}",
            f"[yellow]{again:,}[/]" if again else "0",
            size(queue.stream.nbytes),
            age(queue.stream.oldest_s),
        )
    return table


def _workers(fleet: "FleetStatus") -> "Table | str":
    """A row for each worker that spoke lately."""
    if not fleet.workers:
        return "[bold]worker[/]  [yellow]none[/]; start some with `rigflow worker` or `rigflow up`"
    table = _table("worker", "stages", "state", "in hand", "frames", "results", "failures", "memory", left=3)
    for worker in fleet.workers:
        silent_s = time.time() - worker["at_s"]
        state = f"[yellow]silent for {silent_s:.0f} s[/]" if silent_s > SILENT_S else worker["state"]
        table.add_row(
            worker["worker"],
            " ".join(worker["stages"]),
            state,
            *(f"{worker[count]:,}" for count in ("in_hand", "frames", "results")),
            f"[red]{worker['failures']:,}[/]" if worker["failures"] else "0",
            size(worker["rss_bytes"]),
        )
    return table


def _table(*titles: str, left: int = 2) -> "Table":
    """A plain table; the first `left` columns are words, the others numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < left else "right", overflow="fold")
    return table


def size(nbytes: float) -> str:
    """Bytes for people: three digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            break
        nbytes /= 1000
    else:
        unit = "TB"
    return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.3g} {unit}"


def age(seconds: float) -> str:
    """A duration for people: its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
