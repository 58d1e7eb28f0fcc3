"""`rigflow publish`: publishes media to a fleet, and does not wait for the results."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.answers import Answer, answers
from cli.chosen_pipeline import chosen_pipeline
from cli.interrupts import display, run_async
from cli.options import (
    Interactive,
    Json,
    ModelName,
    PipelineName,
    StageFields,
    Stream,
    on_fleet,
)
from cli.text import complain, stderr, warn
from schemas.errors import BrokerError, ExitCode, RigflowError, UsageError
from schemas.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.client import Client
    from schemas.jobs import JobRef, Manifest, Priority
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.inputs import JobOutcome


@on_fleet
def publish(
    pipeline: PipelineName,
    inputs: Annotated[list[Path], typer.Argument(help="Files that the pipeline takes.", metavar="INPUT...")],
    job: Annotated[str, typer.Option(help="The job's id. Default: made of the file and the pipeline.")] = "",
    model: ModelName = None,
    fields: StageFields = None,
    stream: Stream = None,
    interactive: Interactive = False,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Publish files to a fleet, and print the ids of their jobs.

    Each video is a job; images that are given together are one job. A job that was published before is not done twice
    while its results are at the broker; when they were collected, it is done again, and a line says so. If its
    publishing was interrupted, that continues where it stopped. While the fleet is full, this waits. Of a file that is
    refused, no job is made.

    Example: rigflow publish upscale2x holiday.mp4 --nats nats://rig1:4222
    """

    from cli.run_task import check_inputs
    from schemas.declared import TOKEN_HINT, is_token
    from schemas.jobs import Priority

    if job and not is_token(job):
        raise UsageError(f"--job {job}", TOKEN_HINT)
    check_inputs(inputs)
    spec, models, variant = chosen_pipeline(pipeline, model, fields, stream, settings, inputs)
    console = stderr()
    priority = Priority.INTERACTIVE if interactive else Priority.BULK
    with answers(as_json) as answer:
        return run_async(_publish(settings, spec, models, variant, inputs, job, priority, console, answer))


async def _publish(
    settings: "Settings",
    spec: "PipelineSpec",
    models: "Models",
    variant: bool,
    inputs: list[Path],
    job: str,
    priority: "Priority",
    console: "Console",
    answer: Answer,
) -> ExitCode:
    from pipelines.client import Client
    from workers.definitions import register
    from workers.inputs import look_at, plan_jobs
    from workers.waits import explained

    sending: list[JobRef] = []
    async with (
        Client.connected(settings, name="rigflow-publish") as client,
        explained(client.broker, warn, lambda: sending) as moved,
    ):
        spec = await register(client.broker, settings, spec, models, variant)
        client.on_sent = lambda *_: moved()
        inspected = await asyncio.to_thread(look_at, inputs, spec)
        planned = await asyncio.to_thread(plan_jobs, client, spec, inspected, priority)
        if job:
            if len(planned) > 1:
                what = f"--job {job} cannot name {len(planned)} jobs"
                raise UsageError(what, "publish files that make one job")
            planned[0].job = client.ref(spec, job, priority)
        codes = set()
        for outcome in planned:
            sending[:] = [outcome.job]
            codes.add(await _send(client, spec, outcome, console, answer))
    return codes.pop() if len(codes) == 1 else ExitCode.SOME_FAILED


async def _send(
    client: "Client", spec: "PipelineSpec", outcome: "JobOutcome", console: "Console", answer: Answer
) -> ExitCode:
    """Publish one job and print its id; the code of the error when its media cannot be sent."""
    from rich.text import Text

    from pipelines.job_records import JobCancelled
    from workers.run import open_job

    facts = {"input": outcome.name, "inputs": list(map(str, outcome.inputs)), "pipeline": spec.name}
    if outcome.error is not None:
        answer("", **facts, job=None, error=str(outcome.error))
        complain(outcome.error)
        return outcome.error.exit_code
    opened = await open_job(client, spec, outcome, again=False)
    if before := _before(opened.manifest, opened.before):
        console.print(f"{printable(outcome.name)}: {before}", style="yellow", markup=False)
    try:
        sending = console.status(Text(f"publishing {printable(outcome.name)}"))
        with display(sending.stop), sending:
            await opened.send()
            await opened.hand_over()
    except BrokerError:
        raise
    except RigflowError as error:
        of_job = f"job {outcome.job.id}: " if opened.is_known else ""
        complain(f"{of_job}{error}")
        if opened.is_known and not isinstance(error, JobCancelled):
            await opened.give_up(error)
        answer("", **facts, job=outcome.job.id if opened.is_known else None, error=str(error))
        return error.exit_code
    answer(outcome.job.id, **facts, job=outcome.job.id, error=None)
    return ExitCode.OK


def _before(known: "Manifest", other: "Manifest | None") -> str:
    """A line about earlier work on this job, or about the other job that had its id; empty for a new job."""
    if known.state.ended:
        return f"{known.state.value} before; `rigflow results {known.job.id}` gives its results"
    if known.total is not None:
        return "published before; nothing is sent twice"
    if known.segments:
        first = "segment" if known.segments == 1 else f"{known.segments} segments"
        return f"continues after the first {first}"
    if other is not None and (was := _differs(other, known)):
        over = ", and is over" if other.state.ended else ""
        return f"job {known.job.id} was of {was[0]}{over}: its id is now of {was[1]}"
    if known.job.generation and other is None:
        return f"an earlier job {known.job.id} was deleted: this one is new"
    if known.job.generation:
        return "published before, and no results of it are at the broker: it is done again"
    return ""


def _differs(other: "Manifest", known: "Manifest") -> tuple[str, str] | None:
    """What two jobs are of, where that differs: their pipelines, or their inputs."""
    if other.job.pipeline != known.job.pipeline:
        return other.job.pipeline, known.job.pipeline
    if other.source != known.source:
        names = printable(other.name), printable(known.name)
        return names if names[0] != names[1] else (f"another {names[0]}", "this one")
    return None
