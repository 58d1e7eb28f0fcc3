"""`rigflow status`: what a fleet does now."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import ExitCode
from workers.cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from workers.cli.words import age, size, table

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.status import FleetStatus, QueueStatus
    from schemas.settings import Settings

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


async def _ask(settings: "Settings") -> "FleetStatus":
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
    pairs = table("", "")
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
    from schemas.messages import Lane

    busy = [queue for queue in queues if queue.stream.messages]
    if not busy:
        return f"[bold]queue[/]  all {len(queues)} are empty" if queues else "[bold]queue[/]  none yet"
    rows = table("queue", "interactive", "bulk", "in flight", "again", "size", "oldest", left=1)
    for queue in busy:
        lanes = queue.lanes.values()
        waiting = [queue.lanes[lane].waiting if lane in queue.lanes else 0 for lane in (Lane.INTERACTIVE, Lane.BULK)]
        again = sum(lane.redelivered for lane in lanes)
        rows.add_row(
            f"{queue.pipeline} {queue.stage}".strip(),
            *(f"{count:,}" for count in waiting),
            f"{sum(lane.in_flight for lane in lanes):,}",
            f"[yellow]{again:,}[/]" if again else "0",
            size(queue.stream.nbytes),
            age(queue.stream.oldest_s),
        )
    return rows


def _workers(fleet: "FleetStatus") -> "Table | str":
    """A row for each worker that spoke lately."""
    if not fleet.workers:
        return "[bold]worker[/]  [yellow]none[/]; start some with `rigflow worker` or `rigflow up`"
    from rich.markup import escape

    from workers.process import ALL_STAGES

    rows = table("worker", "stages", "state", "in hand", "frames", "results", "failures", "memory", left=3)
    for worker in fleet.workers:
        silent_s = time.time() - worker["at_s"]
        state = f"[yellow]silent for {silent_s:.0f} s[/]" if silent_s > SILENT_S else worker["state"]
        rows.add_row(
            escape(worker["worker"]),
            "all" if tuple(worker["stages"]) == ALL_STAGES else escape(" ".join(worker["stages"])),
            state,
            *(f"{worker[count]:,}" for count in ("in_hand", "frames", "results")),
            f"[red]{worker['failures']:,}[/]" if worker["failures"] else "0",
            size(worker["rss_bytes"]),
        )
    return rows
