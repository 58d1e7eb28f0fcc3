"""`rigflow rig`: runs this machine's workers, for a broker on another machine."""

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.help import Commands
from cli.options import Credentials, FleetUrl, SettingsFile, command_of, ends_well, fleet_from, settings_from
from cli.orders import add_orders, forget
from schemas.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from schemas.rig import RigSpec, WorkerGroup
    from schemas.settings import Settings


app = Commands(name="rig", invoke_without_command=True)


@app.callback()
@ends_well
def rig(
    context: typer.Context,
    nats: FleetUrl = None,
    name: Annotated[str, typer.Option(help="What `status` calls it. Default: the machine's name.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of its workers; see docs/cli.md.", metavar="FILE")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Address of its metrics and health. Default: 127.0.0.1:9464.", metavar="HOST:PORT"),
    ] = None,
    join: Annotated[
        str | None, typer.Option(help="Join the fleet of this broker first; with --token.", metavar="URL")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="A token of `rigflow keys join add`; it is used once. -: from standard input.", metavar="TOKEN"
        ),
    ] = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode | None:
    """Run all workers of this machine, or give orders to rigs.

    Until Ctrl-C or SIGTERM. A worker that dies is started again; one that dies too often is given up; one that is stuck
    is killed. At the first signal workers finish their messages, at the second they return them. --config says which
    stages each hosts; without it there is a worker for each GPU, or for each core where there is no GPU, with all of
    them.

    --join makes this machine part of a fleet, once: what it gets is kept in ~/.local/share/rigflow/joined, and used by
    every later `rigflow rig` without --nats and --settings.

    Example: rigflow rig --nats nats://rig1:4222 --config rig.toml
    """
    if command_of(context):
        return None
    settings = _of_fleet(settings_file, join, token, nats=nats, credentials=credentials, metrics=metrics)
    spec = _spec(config, name)
    check_devices(spec)
    from workers.forkserver import start_fork_server
    from workers.instance_lock import instance_lock
    from workers.telemetry import set_up_logging

    set_up_logging(settings, rig=spec.name)
    with instance_lock(settings.cache_folder / "rigs" / spec.name, spec.name) as scratch:
        start_fork_server()  # it imports what workers need while we import what we need
        import uvloop

        from workers.rig import Rig

        return uvloop.run(Rig(settings, spec, scratch, str(config or "")).run())


add_orders(app, "rig")
app.command()(forget)


def _of_fleet(file: Path | None, url: str | None, token: str | None, **given: str | None) -> "Settings":
    """The settings of the fleet that is named, joined now, or was joined before. Raises UsageError, BrokerError."""
    from cli.joining import join, joined_settings

    if (url is None) != (token is None):
        raise UsageError("--join and --token go together", "`rigflow keys join add NAME` makes a token")
    if url is not None and token is not None:
        if given["nats"] or given["credentials"]:
            raise UsageError("--join beside --nats or --credentials", "leave these out: the token brings them")
        text = sys.stdin.readline() if token == "-" else token
        file = join(settings_from(file, **{**given, "nats": url}), text)
    elif file is None and not given["nats"]:
        file = joined_settings()
    return fleet_from(file, **given)


def _spec(config: Path | None, name: str) -> "RigSpec":
    """The rig's file, or a worker for each GPU or core. Raises UsageError."""
    from schemas.rig import RigSpec, parse_rig, rig_name

    if config is None:
        spec = RigSpec(worker=_each_device())
    else:
        try:
            spec = parse_rig(config.read_text(), str(config))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"{config}: {reason}", "check the path") from error
    return _named(spec, name or spec.name or rig_name(socket.gethostname()))


def _each_device() -> "tuple[WorkerGroup, ...]":
    """A worker for each GPU that CUDA_VISIBLE_DEVICES lets us use, by its UUID; without GPUs one for each core."""
    from engines.machine import DriverError, cores, gpus
    from schemas.rig import WorkerGroup

    try:
        found = gpus()
    except DriverError as error:
        raise UsageError(f"the NVIDIA driver does not work ({error})", "see nvidia-smi, or give --config") from error
    return tuple(WorkerGroup(device=f"cuda:{gpu.uuid}") for gpu in found) or (WorkerGroup(count=cores()),)


def check_devices(spec: "RigSpec") -> None:
    """Raises UsageError when no worker of the rig has its device here: nothing would ever run.

    Where others have theirs, the rig runs these, and gives up the worker without a device: a GPU may be broken.
    """
    from engines.machine import find_gpu

    errors = []
    for device in {group.device for group in spec.worker}:
        if not device.startswith("cuda:"):
            return
        try:
            find_gpu(device)
        except UsageError as error:
            errors.append(error)
        else:
            return
    raise min(errors, key=str)


def _named(spec: "RigSpec", name: str) -> "RigSpec":
    from schemas.declared import is_token

    if not is_token(name):
        raise UsageError(f"{name}: not a name for a rig", "use letters, digits, - and _")
    return spec.model_copy(update={"name": name})
