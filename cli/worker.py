"""`rigflow worker`: runs one worker in this process, for a broker on another machine."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Credentials, FleetUrl, SettingsFile, command_of, ends_well, fleet_from
from cli.orders import add_orders
from schemas.errors import UsageError
from schemas.text import without_passwords

if TYPE_CHECKING:
    from schemas.settings import Settings


app = Commands(name="worker", invoke_without_command=True)


@app.callback()
@ends_well
def worker(
    context: typer.Context,
    stages: Annotated[
        str, typer.Option(help="Kinds or names of the stages it runs, with commas. Default: all.", metavar="STAGES")
    ] = "",
    nats: FleetUrl = None,
    name: Annotated[str, typer.Option(help="What `status` calls it. Default: host and process id.")] = "",
    device: Annotated[
        str | None, typer.Option(help="What it computes on: cpu, cuda:INDEX or cuda:UUID. Default: cpu.")
    ] = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> None:
    """Run one worker in this process until Ctrl-C or SIGTERM, or give orders to workers.

    It serves every pipeline that the broker knows; models come from the broker too. Stages are split, decode, encode,
    collect and operators (resize, infer ...), or the names that pipelines give theirs. Stages in one worker pass their
    results in memory. At the first signal it finishes its messages, at the second it returns them.

    Example: rigflow worker --stages decode,resize --nats nats://rig1:4222
    """
    if command_of(context):
        return
    settings = fleet_from(settings_file, nats=nats, credentials=credentials, device=device)
    wanted = parse_stages(stages)
    from schemas.rig import ALL_STAGES
    from workers.options import WorkerOptions
    from workers.process import work

    def announce() -> None:
        at = without_passwords(settings.nats)
        print(f"rigflow worker on {at}: {', '.join(wanted or ALL_STAGES)}", file=sys.stderr, flush=True)

    if wanted:
        run_async(_check_stages(settings, wanted))
    from workers.telemetry import set_up_logging

    set_up_logging(settings, **({"worker": name} if name else {}))
    options = WorkerOptions(settings=settings, stages=wanted or ALL_STAGES, name=name, device=settings.device)
    work(options, on_connected=announce)


add_orders(app, "worker")


async def _check_stages(settings: "Settings", stages: tuple[str, ...]) -> None:
    from pipelines.broker import Broker
    from workers.known_stages import check_stages

    async with Broker.connected(settings, name="rigflow-worker") as broker:
        await check_stages(broker, stages, "--stages")


def parse_stages(text: str) -> tuple[str, ...]:
    """Stages from what was given with commas, each once. Raises UsageError for what cannot be a stage."""
    from schemas.declared import is_token

    stages = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for stage in stages:
        if not is_token(stage):
            raise UsageError(f"{stage}: not a stage", "give kinds or names with commas, like decode,resize")
    return stages
