"""`rigflow worker`: runs one worker in this process, for a broker on another machine."""

import sys
from typing import Annotated

import typer

from cli.options import Credentials, FleetUrl, SettingsFile, ends_well, fleet_from
from cli.text import warn
from schemas.errors import ExitCode, UsageError
from schemas.text import without_passwords


@ends_well
def worker(
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
) -> ExitCode:
    """Run one worker in this process until Ctrl-C or SIGTERM.

    It serves every pipeline that the broker knows; models come from the broker too. Stages are split, decode, encode,
    collect and operators (resize, infer ...), or the names that pipelines give theirs. Stages in one worker pass their
    results in memory. At the first signal it finishes its messages, at the second it returns them.

    Example: rigflow worker --stages decode,resize --nats nats://rig1:4222
    """
    settings = fleet_from(settings_file, nats=nats, credentials=credentials, device=device)
    wanted = parse_stages(stages)
    from schemas.rig import ALL_STAGES
    from workers.options import WorkerOptions
    from workers.process import work

    def announce() -> None:
        at = without_passwords(settings.nats)
        print(f"rigflow worker on {at}: {', '.join(wanted or ALL_STAGES)}", file=sys.stderr, flush=True)

    if names := [stage for stage in wanted if stage not in kinds_of_stages()]:
        are = "is no kind of stage" if len(names) == 1 else "are no kinds of stages"
        warn(f"{', '.join(names)} {are}: it serves pipelines with a stage of that name")
    options = WorkerOptions(settings=settings, stages=wanted or ALL_STAGES, name=name, device=settings.device)
    work(options, on_connected=announce)


def kinds_of_stages() -> tuple[str, ...]:
    """All kinds of stages that this machine can run."""
    from engines.registry import names
    from schemas.rig import ALL_STAGES

    return (*ALL_STAGES, "split", "decode", *names("operators"), "encode", "collect")


def parse_stages(text: str) -> tuple[str, ...]:
    """Stages from what was given with commas, each once. Raises UsageError for what cannot be a stage."""
    from schemas.declared import is_token

    stages = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for stage in stages:
        if not is_token(stage):
            raise UsageError(f"{stage}: not a stage", "give kinds or names with commas, like decode,resize")
    return stages
