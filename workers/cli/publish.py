"""`rigflow publish`: media to a fleet, without waiting for the results."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import BrokerError, ExitCode, RigflowError, UsageError
from schemas.messages import Lane
from schemas.pipeline import TOKEN, PipelineSpec
from schemas.settings import Settings
from workers.cli.options import Credentials, FleetUrl, SettingsFile, ends_well, fleet_from

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.broker import Broker
    from pipelines.publish import Publisher
    from workers.local import Models, Outcome


@ends_well
def publish(
    pipeline: Annotated[str, typer.Argument(help="A pipeline's name, or the path of its file.")],
    inputs: Annotated[list[Path], typer.Argument(help="Videos or images.", metavar="INPUT...")],
    job: Annotated[str, typer.Option(help="The job's id. Default: made of the file and the pipeline.")] = "",
    lane: Annotated[Lane, typer.Option(help="Who waits: a person, or nobody.")] = Lane.BULK,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Publish files to a fleet, and print the ids of their jobs, one a line.

    A video is a job of its own; images given together are one. A job that was published before is not done twice.
    When the fleet is full, this waits.

    Example: rigflow publish upscale2x holiday.mp4 --nats nats://rig1:4222
    """
    import re

    from rich.console import Console

    from workers.cli.run import check_inputs
    from workers.local import find_models, find_pipeline

    settings = fleet_from(settings_file, nats=nats, credentials=credentials)
    if job and not re.match(TOKEN, job):
        raise UsageError(f"--job {job}", "letters, digits, - and _, at most 64 of them")
    spec, folder = find_pipeline(pipeline)
    models = find_models(spec, folder)
    check_inputs(inputs)
    console = Console(stderr=True, highlight=False)
    return asyncio.run(_publish(settings, spec, models, inputs, job, lane, console))


async def _publish(
    settings: Settings,
    spec: PipelineSpec,
    models: "Models",
    inputs: list[Path],
    job: str,
    lane: Lane,
    console: "Console",
) -> ExitCode:
    from pipelines.broker import Broker
    from pipelines.publish import Publisher
    from workers.local import plan_jobs, register

    broker = await Broker.connect(settings, name="rigflow-publish")
    try:
        spec = await register(broker, settings, spec, models)
        publisher = Publisher(broker, spec, settings.space, lane)
        planned = plan_jobs(publisher, spec, inputs, Path())
        if job:
            if len(planned) > 1:
                raise UsageError(f"--job {job} cannot name {len(planned)} jobs", "publish one video, or only images")
            planned[0].job = publisher.ref(job)
        sent = [await _send(broker, publisher, outcome, console) for outcome in planned]
    finally:
        await broker.close()
    return ExitCode.OK if all(sent) else ExitCode.SOME_FAILED


async def _send(broker: "Broker", publisher: "Publisher", outcome: "Outcome", console: "Console") -> bool:
    """Publish one job and print its id; False when its media cannot be sent."""
    from pipelines.collect import done_of

    if await done_of(broker, outcome.job) is not None:
        console.print(f"{outcome.name}: done before; to do it again, give another --job", style="yellow")
    else:
        try:
            with console.status(f"publishing {outcome.name}"):
                await _send_media(publisher, outcome)
        except BrokerError:
            raise
        except RigflowError as error:
            console.print(f"rigflow: {error}", soft_wrap=True)
            await publisher.give_up(outcome.job, error)
            return False
    print(outcome.job.id, flush=True)
    return True


async def _send_media(publisher: "Publisher", outcome: "Outcome") -> None:
    if outcome.images:
        await publisher.publish_images(outcome.job, outcome.inputs, [path.name for path in outcome.inputs])
    else:
        await publisher.publish_video(outcome.job, outcome.inputs[0], outcome.name)
