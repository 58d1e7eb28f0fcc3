"""`rigflow profile`: what devices can do, and what models cost on them, measured."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import run_async
from cli.options import Credentials, Json, NatsUrl, SettingsFile, ends_well, settings_from
from cli.text import cell, cells, say, say_json, stdout
from schemas.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from schemas.device_profile import DeviceProfile
    from schemas.settings import Settings

SECONDS, SUSTAINED_S = 30.0, 60.0
MOST_S = 86400.0


@ends_well
def profile(
    given: Annotated[
        list[str] | None,
        typer.Argument(
            help="cpu, cuda:INDEX or cuda:UUID; default: all here. And models: names, or ONNX files.",
            metavar="[DEVICE|MODEL]...",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=1, max=MOST_S, help="About how long a device, or a model on one, is measured.", metavar="SECONDS"
        ),
    ] = SECONDS,
    sustained: Annotated[
        float,
        typer.Option(
            min=0,
            max=MOST_S,
            help="So long more under load, to see whether a GPU keeps its clocks; 0: not.",
            metavar="SECONDS",
        ),
    ] = SUSTAINED_S,
    dim: Annotated[
        list[str] | None, typer.Option(help="Of a model: size of a free dimension.", metavar="NAME=SIZE")
    ] = None,
    media: Annotated[
        Path | None, typer.Option(help="Of a model: test options on this media, not on drawn pictures.", metavar="FILE")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Of a model: replace the options that the fleet has.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Measure nothing: show what is kept.")] = False,
    as_json: Json = False,
    nats: NatsUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Measure what devices can do: arithmetic, memory, link, decoders, encoders.

    The profile of a device is kept in the cache folder of this machine, where `rigflow doctor` shows it, and with
    --nats at the fleet's broker. Nothing else should run on the device meanwhile. With --list, shows the
    profiles that are kept: the fleet's with --nats, else this machine's.

    With a model, tries the options that it can be computed with on each device, and measures the seconds of its
    batches: docs/profiles.md. Workers of the fleet at --nats compute with the options that were chosen.

    Example: rigflow profile cuda:0 --nats nats://10.0.0.5:4222
    """
    from schemas.settings import DEVICE

    settings = settings_from(settings_file, nats=nats, credentials=credentials)
    devices = [each for each in given or [] if re.fullmatch(DEVICE, each)]
    models = [each for each in given or [] if each not in devices]
    chosen = devices or _all_devices()
    if models:
        _models(models, chosen, settings, seconds, dim or [], media, again, list_, as_json)
        return ExitCode.OK
    if list_:
        if settings.nats and devices:
            raise UsageError("--list with --nats shows all devices", "leave the devices out")
        found = run_async(_of_fleet(settings)) if settings.nats else _kept(chosen, settings)
    else:
        found = [_measure(device, settings, seconds, sustained) for device in chosen]
        if settings.nats:
            run_async(_share(settings, found))
    if as_json:
        say_json([each.model_dump(mode="json") for each in found])
    elif not found:
        say("No profile is kept: `rigflow profile` measures one.")
    else:
        _show(found)
    return ExitCode.OK


def _models(
    models: list[str],
    devices: list[str],
    settings: "Settings",
    seconds: float,
    dims: list[str],
    media: Path | None,
    again: bool,
    list_: bool,
    as_json: bool,
) -> None:
    from cli.profile_models import measure_models, show_models

    if list_:
        raise UsageError("--list shows devices", "`rigflow model show NAME` shows what is kept of a model")
    found = measure_models(models, devices, settings, seconds, dims, media, again, _report)
    if as_json:
        say_json([each.model_dump(mode="json") for each in found])
    else:
        show_models(found)


def _all_devices() -> list[str]:
    from engines.machine import DriverError, gpus

    try:
        return ["cpu", *(f"cuda:{gpu.uuid}" for gpu in gpus())]
    except DriverError as error:
        raise UsageError(f"the NVIDIA driver does not work ({error})", "name cpu, or see nvidia-smi") from error


def _measure(device: str, settings: "Settings", seconds: float, sustained_s: float) -> "DeviceProfile":
    """Measure a device and keep its profile on this machine. Raises UsageError, DeviceLost."""
    from engines.extras import install_extra
    from engines.profiling.store import keep_profile

    if device == "cpu":
        from engines.profiling.host import measure_host

        measured = measure_host(seconds, lambda what: _report(device, what))
    elif device.startswith("cuda:"):
        try:
            from engines.profiling.gpu import measure_gpu

            measured = measure_gpu(
                device, settings.cache_folder, seconds, sustained_s, lambda what: _report(device, what)
            )
        except ImportError as error:
            raise UsageError(f"device {device}: {error}", install_extra("gpu")) from error
    else:
        raise UsageError(f"there is no device {device[:100]!a}", "name cpu, cuda:INDEX or cuda:UUID")
    keep_profile(settings.cache_folder, measured)
    return measured


def _report(device: str, what: str) -> None:
    if sys.stderr.isatty():
        print(f"{device}: {what}", file=sys.stderr)


def _kept(devices: list[str], settings: "Settings") -> list["DeviceProfile"]:
    """The profiles of this machine's devices."""
    from engines.machine import driver_version, find_gpu
    from engines.profiling.host_name import host_id
    from engines.profiling.store import kept_profile

    cpu, driver = host_id(), driver_version()
    ids = [cpu if device == "cpu" else find_gpu(device)[1].uuid for device in devices]
    each = (kept_profile(settings.cache_folder, device, "" if device == cpu else driver) for device in ids)
    return [kept for kept in each if kept is not None]


async def _of_fleet(settings: "Settings") -> list["DeviceProfile"]:
    from pipelines.broker import Broker
    from pipelines.profiles import fleet_profiles

    async with Broker.connected(settings, name="rigflow-profile") as broker:
        return await fleet_profiles(broker)


async def _share(settings: "Settings", profiles: list["DeviceProfile"]) -> None:
    from pipelines.audit import audit
    from pipelines.broker import Broker
    from pipelines.profiles import share_profile
    from pipelines.topology import ensure_topology

    async with Broker.connected(settings, name="rigflow-profile") as broker:
        await ensure_topology(broker, settings, [])
        for each in profiles:
            await audit(broker, "profile-shared", each.device)
            await share_profile(broker, each)


def _show(profiles: list["DeviceProfile"]) -> None:
    """A row for each statement, under the name of its device."""
    from cli.tables import paragraphs

    for number, each in enumerate(profiles):
        rows = paragraphs((cell(name, "bold"), values) for name, values in each.rows())
        title = cells((f"{each.name}  ", "bold"), (each.device, ""))
        stdout().print(*([""] if number else []), title, rows, sep="\n")
