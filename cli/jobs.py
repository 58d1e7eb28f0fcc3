"""`rigflow jobs`: shows published jobs, waits for them, cancels and deletes them."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli.answers import Answer, answers
from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.text import age, cell, clock, one_line, say_fields, say_json, stdout, took
from schemas.errors import ExitCode
from schemas.text import count, printable

if TYPE_CHECKING:
    from cli.tables import Rows
    from pipelines.client import Client
    from schemas.jobs import Manifest
    from schemas.settings import Settings

app = Commands(
    name="jobs",
    help="Show jobs and their progress, wait for them, cancel or delete them.\n\nExample: rigflow jobs list",
)

JobIds: TypeAlias = Annotated[list[str], typer.Argument(help="Ids of jobs.", metavar="JOB...")]


@app.command("list")
@on_fleet
def list_(
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """List the jobs of the last seven days, oldest first.

    Example: rigflow jobs list --nats nats://rig1:4222
    """
    return run_async(_list(settings, as_json))


@app.command()
@on_fleet
def show(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Show how far a job is, what failed, and what is missing.

    Example: rigflow jobs show 5f0c6a4be1d2f7a09c3e
    """
    return run_async(_show(settings, job, as_json))


@app.command()
@on_fleet
def cancel(
    jobs: JobIds,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Cancel jobs that are not over, and delete their results.

    Their queued messages are deleted, and workers drop those in flight. A job that is published again starts again.

    Example: rigflow jobs cancel 5f0c6a4be1d2f7a09c3e
    """
    return run_async(_cancel(settings, jobs, as_json))


@app.command()
@on_fleet
def delete(
    jobs: JobIds,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Delete jobs with their results. One that is not over is cancelled first.

    Their ids are free then for other media and other pipelines. Files that were written stay.

    Example: rigflow jobs delete 5f0c6a4be1d2f7a09c3e
    """
    return run_async(_delete(settings, jobs, as_json))


@app.command()
@on_fleet
def wait(
    jobs: JobIds,
    as_json: Json = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, help="Most seconds to wait. Default: for ever.", metavar="SECONDS")
    ] = None,
    *,
    settings: "Settings",
) -> ExitCode:
    """Wait until jobs are over.

    The exit code is 0 when all of them are done without a failure, and 3 when nothing can complete them because the
    broker lost their messages; else 1.

    Example: rigflow jobs wait 5f0c6a4be1d2f7a09c3e --timeout 600
    """
    with answers(as_json) as answer:
        return run_async(_wait(settings, jobs, timeout, answer))


async def _list(settings: "Settings", as_json: bool) -> ExitCode:
    from pipelines.inventory import take_inventories
    from pipelines.job_records import all_manifests

    async with _client(settings) as client:
        broker, known = client.broker, await all_manifests(client.broker)
        unfinished = [manifest for manifest in known if not manifest.state.ended]
        now = {taken.manifest.job: taken.progress for taken in await take_inventories(broker, unfinished)}
    listed = [now.get(manifest.job, manifest) for manifest in known]
    if as_json:
        say_json([manifest.model_dump(mode="json") for manifest in listed])
        return ExitCode.OK
    stdout().print(_rows(listed, broker.now_s()) if listed else "no jobs")
    return ExitCode.OK


def _rows(listed: "list[Manifest]", now_s: float) -> "Rows":
    """A row of one line for each job; a narrow window shortens its names."""
    from cli.tables import list_of

    rows = (
        (
            each.job.id,
            one_line(each.name),
            one_line(each.job.pipeline),
            cell(each.state.value, _STYLES.get(each.state.value, "")),
            f"{each.segments_done:,}/{'?' if each.total is None else f'{each.total:,}'}",
            cell(f"{each.lost:,}", "yellow" if each.lost else ""),
            cell(f"{each.failures:,}", "red" if each.failures else ""),
            age(now_s - each.created_s, units=1),
        )
        for each in listed
    )
    titles = ("job", "input", "pipeline", "state", "segments", "lost", "failed", "age")
    return list_of(titles, rows, left=4, unless={"lost": "0", "failed": "0"}, named=("input",))


async def _show(settings: "Settings", job: str, as_json: bool) -> ExitCode:
    async with _client(settings) as client:
        manifest = await (await client.find(job)).progress()
    if as_json:
        say_json(manifest.model_dump(mode="json"))
    else:
        say_fields(describe(manifest, client.broker.now_s()))
    return ExitCode.OK


async def _cancel(settings: "Settings", jobs: list[str], as_json: bool) -> ExitCode:
    from schemas.jobs import JobState

    async with _client(settings) as client:
        ended = [await found.cancel() for found in [await client.find(job) for job in jobs]]
    with answers(as_json) as answer:
        for manifest in ended:
            over = "" if manifest.state is JobState.CANCELLED else ", it was over before"
            answer(f"{manifest.job.id}: {manifest.state.value}{over}", **manifest.model_dump(mode="json"))
    return ExitCode.OK if all(each.state is JobState.CANCELLED for each in ended) else ExitCode.SOME_FAILED


async def _delete(settings: "Settings", jobs: list[str], as_json: bool) -> ExitCode:
    async with _client(settings) as client:
        found = [await client.find(job) for job in dict.fromkeys(jobs)]
        with answers(as_json) as answer:
            for job in found:
                await job.delete()
                answer(f"{job.id}: deleted", job=job.id, state="deleted")
    return ExitCode.OK


async def _wait(settings: "Settings", jobs: list[str], timeout_s: float | None, answer: Answer) -> ExitCode:
    from cli.jobs_wait import wait_for_jobs

    async with _client(settings) as client:
        manifests = [(await client.find(job)).manifest for job in jobs]
        return await wait_for_jobs(client.broker, manifests, timeout_s, _in_a_line, answer)


def _client(settings: "Settings") -> "AbstractAsyncContextManager[Client]":
    from pipelines.client import Client

    return Client.connected(settings, name="rigflow-jobs")


def describe(manifest: "Manifest", now_s: float) -> list[tuple[str, str]]:
    """All that is known of a job: title and text of each line."""
    job = manifest.job
    again = (
        f", started again {job.generation} times" if job.generation > 1 else ", started again" if job.generation else ""
    )
    files = printable(", ".join(manifest.files)) or "-"
    begun, ended = manifest.created_s, manifest.ended_s
    # the broker has all its results; the collector that fetches them writes its files, and the time of its end
    uncollected = manifest.state.ended and not ended
    lines = [
        ("job", f"{job.id} ({job.pipeline} {job.revision}, tenant {job.tenant}, {job.priority}{again})"),
        ("input", printable(manifest.name) or "-"),
        ("state", manifest.state.value),
        ("segments", _segments(manifest)),
        ("frames", f"{manifest.frames:,}" + (f", {manifest.lost:,} lost" if manifest.lost else "")),
        ("begun", f"{clock(begun)}, {age(now_s - begun)} ago" if begun else "-"),
        ("ended", f"{clock(ended)}, after {took(ended - begun)}" if ended else "-"),
        ("files", files),
        ("missing", seconds(manifest.missing) or "-"),
        *(("note", printable(note)) for note in manifest.notes),
        *(("failed", printable(reason)) for reason in manifest.reasons),
        *([("in doubt", manifest.doubt)] if manifest.doubt else []),
    ]
    if uncollected:
        collect = {
            "ended": "its results are complete and not collected",
            "files": f"`rigflow results {job.id}` writes them",
        }
        lines = [(title, collect.get(title, text)) for title, text in lines]
    if (more := manifest.failures - len(manifest.reasons)) > 0 and manifest.reasons:
        lines.append(("", f"and {more} more"))
    return lines


def seconds(missing: tuple[tuple[float, float], ...]) -> str:
    """Spans of media for people: `3.00-5.00 s, 1:02:03.00-1:02:05.00`."""
    return ", ".join(
        f"{start_s:.2f}-{end_s:.2f} s" if end_s < 60 else f"{_position(start_s)}-{_position(end_s)}"
        for start_s, end_s in missing
    )


def _position(at_s: float) -> str:
    """A position in media as players show it: `4:05.00`, `1:02:03.00`."""
    minutes, rest_s = divmod(round(at_s, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest_s:05.2f}" if hours else f"{minutes}:{rest_s:05.2f}"


def _in_a_line(manifest: "Manifest") -> str:
    failures = f", {count(manifest.failures, 'failure')}" if manifest.failures else ""
    missing = f", missing {seconds(manifest.missing)}" if manifest.missing else ""
    lost = f", {manifest.lost:,} lost" if manifest.lost else ""
    return f"{manifest.job.id}: {manifest.state.value}, {count(manifest.frames, 'frame')}{lost}{failures}{missing}"


def _segments(manifest: "Manifest") -> str:
    total = "?" if manifest.total is None else f"{manifest.total:,}"
    published = f", {manifest.segments:,} published" if manifest.total is None else ""
    return f"{manifest.segments_done:,} of {total}{published}"


_STYLES = {"done": "green", "failed": "red", "cancelled": "yellow"}
