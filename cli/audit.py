"""`rigflow audit`: who changed what of a fleet."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from cli.text import one_line, say_json, stdout
from schemas.errors import ExitCode

if TYPE_CHECKING:
    from cli.tables import Given
    from pipelines.audit import Audited


@ends_well
def audit(
    last: Annotated[int, typer.Option(min=1, help="How many changes, the newest.", metavar="N")] = 100,
    action: Annotated[str | None, typer.Option(help="Only these, as model-published.", metavar="ACTION")] = None,
    target: Annotated[str | None, typer.Option(help="Only those of this pipeline, model, job, ...")] = None,
    as_json: Json = False,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Show who changed what of the fleet: pipelines, models, jobs, dead letters, API keys, orders.

    The role and the time are what the broker knows; login, user and machine are what that process said of
    itself. Nobody can change or delete an entry; the broker drops the oldest ones when there are about
    200,000.

    Example: rigflow audit --action job-cancelled --last 20
    """
    from pipelines.audit import read_audit
    from pipelines.broker import Broker

    settings = fleet_from(settings_file, nats=nats, credentials=credentials)

    async def read() -> "list[Audited]":
        async with Broker.connected(settings, name="rigflow-audit") as broker:
            found = [each async for each in read_audit(broker)]
        wanted = [each for each in found if action in (None, each.entry.action)]
        return [each for each in wanted if target in (None, each.entry.target)][-last:]

    found = run_async(read())
    if as_json:
        say_json([{"number": each.number, "at_s": each.at_s, "role": each.role, **dict(each.entry)} for each in found])
    elif found:
        from cli.tables import list_of

        titles = ("when", "role", "who", "action", "target", "details")
        rows = map(_row, found)
        stdout().print(list_of(titles, rows, left=len(titles), unless={"details": ""}, named=("target",)))
    else:
        stdout().print("no change that fits is in the audit log")
    return ExitCode.OK


def _row(audited: "Audited") -> "list[Given]":
    entry = audited.entry
    who = entry.api_key or "@".join(filter(None, (entry.user, entry.machine))) or entry.login[:12]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(audited.at_s))
    details = " ".join(f"{name}={value}" for name, value in entry.facts.items())
    return [when, *map(one_line, (audited.role, who, entry.action, entry.target, details))]
