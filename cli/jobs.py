"""`rigflow jobs`: what became of the jobs that were published; waiting for them, and ending them."""

import asyncio
import json
import time
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from
from cli.text import age, one_line, say, stdout, table, warn
from schemas.errors import ExitCode, UsageError
from schemas.text import count, printable

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.broker import Broker
    from schemas.jobs import JobRef, Manifest
    from schemas.settings import Settings

app = typer.Typer(
    name="jobs",
    help="See how far jobs are, wait for them, or end them.\n\nExample: rigflow jobs list",
    rich_markup_mode=None,
)

JobIds: TypeAlias = Annotated[list[str], typer.Argument(help="Ids of jobs.", metavar="JOB...")]


@app.command("list")
@ends_well
def list_(
    as_json: Json = False,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """List the jobs of the last seven days, oldest first.

    Example: rigflow jobs list --nats nats://rig1:4222
    """
    return asyncio.run(_list(fleet_from(settings_file, nats=nats, credentials=credentials), as_json))


@app.command()
@ends_well
def show(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    as_json: Json = False,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Show how far a job is, what failed, and what is missing.

    Example: rigflow jobs show 5f0c6a4be1d2f7a09c3e
    """
    return asyncio.run(_show(fleet_from(settings_file, nats=nats, credentials=credentials), job, as_json))


@app.command()
@ends_well
def cancel(
    jobs: JobIds,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """End jobs that are not over; their results so far are deleted.

    What is queued of them is deleted, what workers have in flight is dropped. Published again, a job is begun anew.

    Example: rigflow jobs cancel 5f0c6a4be1d2f7a09c3e
    """
    return asyncio.run(_cancel(fleet_from(settings_file, nats=nats, credentials=credentials), jobs))


@app.command()
@ends_well
def wait(
    jobs: JobIds,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Most seconds to wait. Default: for ever.")] = None,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Wait until jobs are over.

    The exit code is 0 when all of them are done without a failure, else 1.

    Example: rigflow jobs wait 5f0c6a4be1d2f7a09c3e --timeout 600
    """
    return asyncio.run(_wait(fleet_from(settings_file, nats=nats, credentials=credentials), jobs, timeout))


async def _list(settings: "Settings", as_json: bool) -> ExitCode:
    from pipelines.inventory import take_inventories
    from pipelines.job_records import all_manifests

    async with _broker(settings) as broker:
        known = await all_manifests(broker)
        unfinished = [manifest for manifest in known if not manifest.state.ended]
        now = {taken.manifest.job: taken.progress for taken in await take_inventories(broker, unfinished)}
    listed = [now.get(manifest.job, manifest) for manifest in known]
    if as_json:
        print(json.dumps([manifest.model_dump(mode="json") for manifest in listed], indent=2))
        return ExitCode.OK
    stdout().print(_rows(listed) if listed else "no jobs")
    return ExitCode.OK


def _rows(listed: "list[Manifest]") -> "Table":
    """A row of one line for each job; a narrow window shortens its names. A count that is always 0 is left out."""
    counts = {
        "lost": [f"[yellow]{each.lost:,}[/]" if each.lost else "0" for each in listed],
        "failed": [f"[red]{each.failures:,}[/]" if each.failures else "0" for each in listed],
    }
    shown = {title: column for title, column in counts.items() if set(column) != {"0"}}
    rows = table("job", "input", "pipeline", "state", "segments", *shown, "age", left=4)
    rows.padding = (0, 1, 0, 0)
    for column in (0, 3):
        rows.columns[column].no_wrap = True
    for number, each in enumerate(listed):
        rows.add_row(
            each.job.id,
            one_line(each.name),
            one_line(each.job.pipeline),
            _STYLES.get(each.state.value, "{}").format(each.state.value),
            f"{each.segments_done:,}/{'?' if each.total is None else f'{each.total:,}'}",
            *(column[number] for column in shown.values()),
            age(time.time() - each.created_s, units=1),
        )
    return rows


async def _show(settings: "Settings", job: str, as_json: bool) -> ExitCode:
    from pipelines.inventory import take_inventory

    async with _broker(settings) as broker:
        manifest = await _find(broker, job)
        if not manifest.state.ended:
            manifest = (await take_inventory(broker, manifest)).progress
    if as_json:
        print(json.dumps(manifest.model_dump(mode="json"), indent=2))
    else:
        say(describe(manifest), keep="\n")
    return ExitCode.OK


async def _cancel(settings: "Settings", jobs: list[str]) -> ExitCode:
    from pipelines.jobs import cancel
    from schemas.jobs import JobState

    async with _broker(settings) as broker:
        ended = [await cancel(broker, manifest) for manifest in [await _find(broker, job) for job in jobs]]
    for manifest in ended:
        over = "" if manifest.state is JobState.CANCELLED else ", it was over before"
        say(f"{manifest.job.id}: {manifest.state.value}{over}")
    return ExitCode.OK if all(each.state is JobState.CANCELLED for each in ended) else ExitCode.SOME_FAILED


async def _wait(settings: "Settings", jobs: list[str], timeout_s: float | None) -> ExitCode:
    async with _broker(settings) as broker:
        manifests = [await _find(broker, job) for job in jobs]
        ended: dict[str, Manifest] = {}
        try:
            async with asyncio.timeout(timeout_s):
                await _until_ended(broker, manifests, ended)
        except TimeoutError:
            for job in dict.fromkeys(manifest.job.id for manifest in manifests):
                if job not in ended:
                    say(f"{job}: not over within {timeout_s:g} s")
            return ExitCode.SOME_FAILED
    return ExitCode.OK if all(each.state.value == "done" for each in ended.values()) else ExitCode.SOME_FAILED


async def _until_ended(broker: "Broker", manifests: "list[Manifest]", ended: "dict[str, Manifest]") -> None:
    """Print each job as it ends, and add it to `ended` as it was then."""
    from pipelines.inventory import follow_inventories
    from workers.waits import explained

    def note(manifest: "Manifest") -> None:
        if manifest.state.ended and manifest.job.id not in ended:
            ended[manifest.job.id] = manifest
            say(_in_a_line(manifest))

    for manifest in manifests:
        note(manifest)
    left = [manifest for manifest in manifests if manifest.job.id not in ended]

    def waiting() -> "list[JobRef]":
        return [manifest.job for manifest in left if manifest.job.id not in ended]

    async with explained(broker, warn, waiting) as moved, aclosing(follow_inventories(broker, left)) as following:
        while len(ended) < len({manifest.job.id for manifest in manifests}):
            for taken in await anext(following):
                moved()
                note(taken.progress)


async def _find(broker: "Broker", job: str) -> "Manifest":
    from pipelines.job_records import find_manifest

    manifest = await find_manifest(broker, job)
    if manifest is None:
        raise UsageError(f"the broker knows no job {job}", "see `rigflow jobs list`")
    return manifest


def _broker(settings: "Settings") -> "AbstractAsyncContextManager[Broker]":
    from pipelines.broker import Broker

    return Broker.connected(settings, name="rigflow-jobs")


def describe(manifest: "Manifest") -> str:
    """All that is known of a job, a line each."""
    job = manifest.job
    again = f", begun anew {job.generation} times" if job.generation > 1 else ", begun anew" if job.generation else ""
    files = printable(", ".join(manifest.files)) or "-"
    # all its results are at the broker; the collector that fetches them writes its files, and when it ended
    uncollected = manifest.state.ended and not manifest.ended_s
    lines = {
        "job": f"{job.id} ({job.pipeline} {job.revision}, tenant {job.tenant}, {job.priority}{again})",
        "input": printable(manifest.name) or "-",
        "state": manifest.state.value,
        "segments": _segments(manifest),
        "frames": f"{manifest.frames:,}" + (f", {manifest.lost:,} lost" if manifest.lost else ""),
        "begun": _clock(manifest.created_s),
        "ended": "its results are complete and not collected" if uncollected else _clock(manifest.ended_s),
        "files": f"`rigflow results {job.id}` writes them" if uncollected else files,
        "missing": seconds(manifest.missing) or "-",
    }
    text = [f"{title:<9} {value}" for title, value in lines.items()]
    text += [f"failed    {printable(reason)}" for reason in manifest.reasons]
    if (more := manifest.failures - len(manifest.reasons)) > 0 and manifest.reasons:
        text.append(f"          and {more} more")
    return "\n".join(text)


def seconds(missing: tuple[tuple[float, float], ...]) -> str:
    """Spans of media for people: `3.00-5.00 s, 8.00-9.00 s`."""
    return ", ".join(f"{start_s:.2f}-{end_s:.2f} s" for start_s, end_s in missing)


def _in_a_line(manifest: "Manifest") -> str:
    failures = f", {count(manifest.failures, 'failure')}" if manifest.failures else ""
    missing = f", missing {seconds(manifest.missing)}" if manifest.missing else ""
    lost = f", {manifest.lost:,} lost" if manifest.lost else ""
    return f"{manifest.job.id}: {manifest.state.value}, {count(manifest.frames, 'frame')}{lost}{failures}{missing}"


def _segments(manifest: "Manifest") -> str:
    total = "?" if manifest.total is None else f"{manifest.total:,}"
    published = f", {manifest.segments:,} published" if manifest.total is None else ""
    return f"{manifest.segments_done:,} of {total}{published}"


def _clock(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) if at_s else "-"


_STYLES = {"done": "[green]{}[/]", "failed": "[red]{}[/]", "cancelled": "[yellow]{}[/]"}
