"""`rigflow usage`: what jobs used, by API key, pipeline and day."""

import csv
import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from cli.text import one_line, say_json, stdout, took
from schemas.errors import ExitCode, UsageError
from schemas.text import size

if TYPE_CHECKING:
    from cli.tables import Given, Rows
    from schemas.usage import UsageOf, Used


class By(StrEnum):
    """What sums are made by."""

    DAY = "day"
    KEY = "key"
    PIPELINE = "pipeline"


@ends_well
def usage(
    since: Annotated[str | None, typer.Option(help="First day, of UTC. Default: 30 days ago.", metavar="DAY")] = None,
    until: Annotated[str | None, typer.Option(help="Last day. Default: today.", metavar="DAY")] = None,
    by: Annotated[list[By] | None, typer.Option("--by", help="Sums by this; repeat it. Default: all three.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose jobs. Default: the setting tenant.")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table of comma-separated values.")] = False,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Show what jobs used, by API key, pipeline and day.

    It counts jobs, frames, seconds and bytes of media, seconds of computing (by the workers' devices, cards or cores),
    and tokens. A job counts on the day it began, once.

    Example: rigflow usage --since 2026-11-01 --by key --csv
    """
    from pipelines.broker import Broker
    from pipelines.usage import read_usage
    from schemas.usage import Used, day_of

    settings = fleet_from(settings_file, nats=nats, credentials=credentials, tenant=tenant)
    first, last = _day(since), _day(until)
    names = [each.value for each in by or list(By)]

    async def read() -> "dict[UsageOf, Used]":
        async with Broker.connected(settings, name="rigflow-usage") as broker:
            days = first or day_of(broker.now_s() - 30 * 86400), last or day_of(broker.now_s())
            return await read_usage(broker, settings.tenant, *days, names)

    found = run_async(read())
    records = [{**place.model_dump(include=set(names)), **used.model_dump()} for place, used in found.items()]
    if as_json:
        say_json(records)
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, [*names, *Used.model_fields], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        stdout().print(_table(names, found) if found else f"no jobs of tenant {settings.tenant} ended in these days")
    return ExitCode.OK


def _table(names: list[str], found: "dict[UsageOf, Used]") -> "Rows":
    from cli.tables import list_of

    rows: list[list[Given]] = [
        [
            *(one_line(getattr(place, name)) for name in names),
            f"{used.jobs:,}",
            f"{used.failed:,}",
            f"{used.frames:,}",
            took(used.media_s),
            took(used.computed_s),
            size(used.nbytes),
            f"{used.tokens:,}",
        ]
        for place, used in found.items()
    ]
    titles = (*names, "jobs", "failed", "frames", "media", "computed", "input", "tokens")
    return list_of(titles, rows, left=len(names), unless={"failed": "0", "tokens": "0"}, named=names)


def _day(given: str | None) -> str | None:
    """A day of the command line. Raises UsageError."""
    try:
        return given and time.strftime("%Y-%m-%d", time.strptime(given, "%Y-%m-%d"))
    except ValueError:
        raise UsageError(f"{given} is no day", "write it as 2026-11-28") from None
