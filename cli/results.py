"""`rigflow results`: writes the results of jobs into files, or says what is missing."""

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.answers import Answer, answers
from cli.interrupts import run_async
from cli.options import Json, Overwrite, on_fleet
from cli.output_folder import output_folder
from cli.text import stderr, stdout, warn
from schemas.errors import ExitCode, RigflowError
from schemas.text import count, printable
from schemas.wire import Buffer

if TYPE_CHECKING:
    from engines.files import PartFile
    from engines.outputs.names import OutputNames
    from pipelines.broker import Broker
    from pipelines.inventory import Inventory
    from pipelines.job import Job
    from pipelines.job_files import JobFile
    from schemas.results import Done
    from schemas.settings import Settings
    from workers.inputs import JobOutcome


@on_fleet
def results(
    jobs: Annotated[list[str], typer.Argument(help="Ids of jobs, as `rigflow publish` prints them.", metavar="JOB...")],
    follow: Annotated[bool, typer.Option("--follow", help="Wait until the jobs are complete.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.", metavar="DIR")] = Path("."),
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Write the results of jobs into files, once they are complete.

    Until then this says what is there and what is missing. Results without failures leave the broker when they are
    collected. Those with failures stay for a day: after `rigflow dead retry` they can be collected again. Files have
    the names that `rigflow run` gives.

    Existing results are kept. If the new ones are equal, nothing is added; if not, the new ones are written beside the
    old ones, as clip.mp4.PIPELINE.*. --overwrite replaces the old ones.

    Example: rigflow results 5f0c6a4be1d2f7a09c3e --follow --out results
    """
    return run_async(_results(settings, list(dict.fromkeys(jobs)), follow, out, overwrite, as_json))


async def _results(
    settings: "Settings", jobs: list[str], follow: bool, out: Path, overwrite: bool, as_json: bool
) -> ExitCode:
    """Write the results of each job, whatever errors others have. The code is that of all, or SOME_FAILED."""
    from cli.outcomes import earlier_remarks, facts_of, remarks, summary
    from engines.outputs.names import OutputNames
    from pipelines.client import Client

    collected: list[JobOutcome] = []
    codes: set[int] = set()
    async with Client.connected(settings, name="rigflow-results") as client:
        with output_folder(out), OutputNames(out, overwrite) as names, answers(as_json) as answer:
            for name in jobs:
                try:
                    job = await client.find(name)
                    codes.add(await _result(client.broker, job, follow, names, out, collected, answer))
                except RigflowError as error:
                    warn(error)
                    codes.add(error.exit_code)
            for outcome in collected if as_json else ():
                answer("", **facts_of(outcome))
    if collected and not as_json:
        stdout().print(summary(collected, rates=False))
        stderr().print(*(lines := [*remarks(collected), *earlier_remarks(collected)]), sep="\n", end="\n" * bool(lines))
    return ExitCode(codes.pop()) if len(codes) == 1 else ExitCode.SOME_FAILED


async def _result(
    broker: "Broker",
    job: "Job",
    follow: bool,
    names: "OutputNames",
    out: Path,
    collected: "list[JobOutcome]",
    answer: Answer,
) -> ExitCode:
    """Write the files of one job, or say what is missing. A job that is collected here is added to `collected`."""
    from pipelines.inventory import take_inventory
    from pipelines.job_records import CollectedElsewhere, JobCancelled
    from pipelines.jobs import ResultsEvicted
    from schemas.jobs import JobState

    manifest = job.manifest
    if manifest.state is JobState.CANCELLED:
        raise JobCancelled(manifest.job)
    if manifest.results_evicted and not manifest.state.ended:
        raise ResultsEvicted(manifest.job)
    inventory = await take_inventory(broker, manifest)
    if inventory.done is not None and not inventory.done.failures:
        if not inventory.files:
            raise CollectedElsewhere(inventory.done)
        await _save(job, inventory.done, names, outcome := _named(job, names, out))
        collected.append(outcome)
        return ExitCode.OK
    if follow or inventory.complete or (inventory.awaits_gathering and not manifest.hosted):
        outcome = await _collect(broker, job, names, out)
        collected.append(outcome)
        return ExitCode.OK if outcome.ok else ExitCode.SOME_FAILED
    facts = inventory.progress.model_dump(mode="json") | {"input": manifest.name, "job": manifest.job.id, "files": []}
    answer(describe(inventory), keep="\n", **facts)
    return ExitCode.SOME_FAILED


def _named(job: "Job", names: "OutputNames", out: Path) -> "JobOutcome":
    """A job whose result has a name."""
    from engines.outputs.names import Wanted
    from workers.inputs import JobOutcome

    ref, name = job.manifest.job, job.manifest.name or job.id
    outcome = JobOutcome(name, ref, [], [])
    outcome.reserve(names, Wanted(out, name, ref.pipeline))
    return outcome


async def _collect(broker: "Broker", job: "Job", names: "OutputNames", out: Path) -> "JobOutcome":
    """Collect a job as `rigflow run` does, waiting for what is missing."""
    from cli.progress import Progress
    from workers.waits import both, explained

    manifest = job.manifest
    with Progress(stderr()) as progress:
        outcome = _named(job, names, out)
        progress.planned([outcome])
        progress.sent(manifest.job.id, 0.0, manifest.segments)
        async with explained(broker, progress.event, lambda: [manifest.job]) as moved:
            compare = partial(outcome.compare, names)
            outcome.done = await job.collect(outcome.target, both(progress.part, moved), compare)
    return outcome


async def _save(job: "Job", done: "Done", names: "OutputNames", outcome: "JobOutcome") -> None:
    """Write the files that a worker made of a job whose publisher has only NATS."""
    from engines.files import PartFile
    from engines.outputs.earlier import settled
    from engines.outputs.names import clean

    written: list[Path] = []
    async for found in job.files():
        _, called, end = clean(found.name).rpartition(f".{job.ref.pipeline}.")  # the file of an item is called as that
        part = PartFile.create(Path(f"{outcome.target}{'.' if called else '/'}{end}"))
        try:
            await _download(found, part)
            written.append(part.commit())
        finally:
            part.discard()
    assert outcome.wanted is not None
    earlier = names.earlier(outcome.wanted, outcome.target)
    files, outcome.earlier = await asyncio.to_thread(settled, earlier, outcome.target, written)
    paths = tuple(str(file.relative_to(outcome.target.parent)) for file in files)
    outcome.done = done.model_copy(update={"files": paths, "more_files": 0})


async def _download(found: "JobFile", part: "PartFile") -> None:
    from contextlib import aclosing

    from engines.files import writing

    with writing(part.path):
        async with aclosing(found.chunks()) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(part.file.write, chunk)


def write_result(path: Path, body: Buffer) -> Path:
    """Write a file atomically, beside a file of the same name and other content. Its path. Raises OutputError."""
    from engines.files import PartFile, writing
    from engines.outputs.names import unused

    with writing(path):
        if path.is_file() and path.stat().st_size == len(body) and path.read_bytes() == body:
            return path
        file = PartFile.create(unused(path))
    try:
        file.write(body)
        return file.commit()
    finally:
        file.discard()


def describe(inventory: "Inventory") -> str:
    """What is there of an unfinished job, in words."""
    from pipelines.reasons import ranges

    manifest = inventory.manifest
    total = "an unknown number of segments" if inventory.total is None else count(inventory.total, "segment")
    lines = [f"{printable(manifest.name)} ({manifest.job.id}): {len(inventory.complete_segments)} of {total} there"]
    if manifest.state == "publishing":
        lines.append("it is still being published, or its publisher stopped")
    if inventory.missing:
        lines.append(f"missing: {ranges(inventory.missing)}")
    lines += [
        f"failed: segment {failure.key.segment}, {failure.stage}: {printable(failure.error)}"
        for failure in inventory.open_failures
    ]
    lines.append(f"`rigflow jobs wait {manifest.job.id}` waits until it is over")
    return "\n".join(lines)
