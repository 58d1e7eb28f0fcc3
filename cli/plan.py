"""`rigflow plan`: where the stages of a job would run on a fleet, how long it takes, and what limits it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.chosen_pipeline import chosen_pipeline
from cli.interrupts import run_async
from cli.options import (
    Json,
    ModelName,
    PipelineName,
    StageFields,
    on_fleet,
)
from cli.text import say_json
from schemas.errors import ExitCode, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.workload import MediaFacts
    from pipelines.broker import Broker
    from placement.fleet import Fleet
    from schemas.device_profile import DeviceProfile
    from schemas.jobs import Manifest
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings


@on_fleet
def plan(
    pipeline: PipelineName,
    file: Annotated[Path, typer.Argument(help="A file that the pipeline takes.")],
    why: Annotated[
        bool, typer.Option("--why", help="Show the seconds and bytes of each stage, and the reasons.")
    ] = False,
    fleet: Annotated[
        Path | None,
        typer.Option("--fleet", help="TOML file of an imagined fleet; see docs/placement.md.", metavar="FILE"),
    ] = None,
    job: Annotated[
        str, typer.Option(help="A job of this file that is done: predicted beside measured.", metavar="ID")
    ] = "",
    model: ModelName = None,
    fields: StageFields = None,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Show where the stages of a job would run, how long it would take, and what limits it. Nothing is sent.

    The fleet is the one that runs, with its measured profiles and the pace of its work; --fleet takes an imagined one.
    (`rigflow topology plan` is about the broker's streams.)

    Example: rigflow plan detect film.mp4 --why --nats nats://rig1:4222
    """
    from cli.plan_text import answer_of, show
    from cli.run_task import check_inputs
    from engines.workload import workload
    from placement.forecast import forecast

    if fleet and job:
        raise UsageError("--job is about the fleet that runs", "leave out --fleet")
    check_inputs([file])
    spec, models, _ = chosen_pipeline(pipeline, model, fields, None, settings, [file])
    facts = facts_of_file(spec, file, settings)
    known, manifest = run_async(_known(settings, fleet, job))
    if manifest and manifest.job.pipeline != spec.name:
        raise UsageError(
            f"job {job} is of pipeline {manifest.job.pipeline}, not {spec.name}", "name a job of this file"
        )
    if not known.places():
        raise NotFound("the fleet has no workers", "start some with `rigflow rig`, or give --fleet FILE")
    work = workload(spec, models, facts)
    predicted = forecast(known, work)
    if as_json:
        say_json(answer_of(known, work, predicted, manifest))
    else:
        show(file.name, facts, known, work, predicted, manifest, why)
    return ExitCode.OK if predicted.rate else ExitCode.SOME_FAILED


def facts_of_file(spec: "PipelineSpec", file: Path, settings: "Settings") -> "MediaFacts":
    """What a publisher would send of a file. Raises UsageError, MediaError, ItemTooLarge."""
    from engines.media.limits import Limits
    from engines.media.medium import Input, SplitRequest
    from engines.media.shared import SharedFolders
    from engines.outputs.format import sound_of
    from engines.workload import media_facts

    request: SplitRequest = SplitRequest(
        spec.grid, spec.segment_s, sound_of(spec.encode), Limits.of(settings), SharedFolders.of("")
    )
    return media_facts(spec, [Input(file, file.name)], request)


async def _known(settings: "Settings", file: Path | None, job: str) -> "tuple[Fleet, Manifest | None]":
    """The fleet that runs, or that of a file; and a job's manifest."""
    from pipelines.client import Client
    from pipelines.fleet_view import known_fleet

    if file is not None:
        return imagined_of(file, await _profiles(settings)), None
    async with Client.connected(settings, name="rigflow-plan") as client:
        return await known_fleet(client.broker), await _manifest(client.broker, job) if job else None


async def _manifest(broker: "Broker", job: str) -> "Manifest":
    """The manifest of a job whose results are all there. Raises NotFound, UsageError."""
    from pipelines.inventory import take_inventory
    from pipelines.job_records import find_manifest

    found = await find_manifest(broker, job)
    if found is None:
        raise NotFound(f"there is no job {job[:100]!a}", "see `rigflow jobs list`")
    if found.state.ended:
        return found
    taken = await take_inventory(broker, found)
    if not taken.complete:
        raise UsageError(f"job {job} is {found.state.value}", f"wait for it: `rigflow jobs wait {job}`")
    results = broker.names.results(found.job)
    last = await broker.last(broker.names.results_for(results), results)
    return taken.progress.model_copy(update={"ended_s": last.stored_s if last is not None else 0.0})


def imagined_of(file: Path, measured: "Sequence[DeviceProfile]") -> "Fleet":
    """The fleet of a file; its cards may name those that were `measured`, and published ones. Raises UsageError."""
    from engines.profiling.published import card_named
    from placement.imagined import imagined_fleet
    from schemas.fleet_file import parse_fleet

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{file}: {reason}", "check the path") from error
    fleet = imagined_fleet(parse_fleet(text, str(file)), lambda name: card_named(name, measured))
    if not fleet.places():
        hint = "give one a [[rig.card]], or leave out `works = false`"
        raise UsageError(f"{file}: no rig has a card, or cores that compute", hint)
    return fleet


async def _profiles(settings: "Settings") -> "list[DeviceProfile]":
    """The profiles of the fleet that runs, if any does."""
    from pipelines.client import Client
    from pipelines.profiles import fleet_profiles
    from schemas.errors import BrokerError

    try:
        async with Client.connected(settings, name="rigflow-plan") as client:
            return await fleet_profiles(client.broker)
    except BrokerError:
        return []
