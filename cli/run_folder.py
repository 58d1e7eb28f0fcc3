"""`rigflow run` with a folder: what is done, and what is said of it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from cli.options import acknowledged
from cli.progress import Progress
from cli.text import cell, stderr
from schemas.errors import ExitCode, UsageError
from workers.local import local_fleet
from workers.run_folder import FolderRun, folder_run

if TYPE_CHECKING:
    from schemas.jobs import Priority
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.media_folder import Tally

_SHOWN = 20  # reasons of failures
_RESULTS = "skipped (results of an earlier run)"


def run_folder(
    settings: "Settings",
    spec: "PipelineSpec",
    models: "Models",
    variant: bool,
    folder: Path,
    out: Path,
    workers: int,
    priority: "Priority",
    overwrite: bool,
    only_new: bool,
) -> ExitCode:
    """Run a pipeline over the media of a folder; a fleet is started only where there is something to do.

    Raises UsageError: there is no media.
    """
    console = stderr()
    with folder_run(folder, out, spec, models, variant, overwrite, only_new) as work, Progress(console) as progress:
        if work.first():
            asyncio.run(_run(settings, work, workers, priority, progress))
    if not work.tally.media:
        console.print(*_skipped(work.tally), sep="\n", end="\n" * bool(work.tally.skipped))
        raise _no_media(work.tally, folder, spec)
    console.print(_summary(work.tally, out))
    return ExitCode.SOME_FAILED if work.tally.failed else ExitCode.OK


async def _run(settings: "Settings", work: FolderRun, workers: int, priority: "Priority", progress: Progress) -> None:
    with acknowledged():
        async with local_fleet(settings, workers, progress) as fleet:
            await work.run(fleet, priority, progress)


def _no_media(tally: "Tally", folder: Path, spec: "PipelineSpec") -> UsageError:
    others = ((tally.no_media, "no media"), (tally.results, _RESULTS))
    there = ", ".join(f"{number:,} {what}" for number, what in others if number)
    what = f"{folder}: there is nothing to do in it{': ' * bool(there)}{there}"
    return UsageError(what, f"pipeline {spec.name} takes files of {' and '.join(spec.media)}")


def _skipped(tally: "Tally") -> list[Text]:
    return [cell(f"{name}: left alone: {reason}", "yellow") for name, reason in tally.skipped[:_SHOWN]]


def _summary(tally: "Tally", out: Path) -> RenderableType:
    """Counts in one line, and below it what there is to say of single files."""
    said = [f"{tally.done:,} done" + (f" ({tally.copies:,} by a copy)" if tally.copies else "")]
    for number, what in (
        (tally.known, "done before"),
        (tally.kept, "kept (they have files that this command did not write: --overwrite replaces them)"),
        (tally.results, _RESULTS),
        (tally.no_media, "no media"),
        (len(tally.failed), "failed"),
    ):
        said += [f"{number:,} {what}"] if number else []
    lines = _skipped(tally)
    reasons: dict[str, list[str]] = {}
    for name, reason in tally.failed:
        reasons.setdefault(reason, []).append(name)
    for reason, names in [*reasons.items()][:_SHOWN]:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines.append(cell(f"{names[0]}{more}: failed: {reason}", "red"))
    return Group(cell(f"{out}: {', '.join(said)}"), *lines)
