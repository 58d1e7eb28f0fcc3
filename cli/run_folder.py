"""`rigflow run` with a folder: what is done, and what is said of it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from cli.options import acknowledged
from cli.progress import Progress
from cli.text import cell, stderr
from schemas.errors import ExitCode
from workers.local import local_fleet
from workers.run_folder import FolderRun, folder_run

if TYPE_CHECKING:
    from schemas.jobs import Priority
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.media_folder import Tally

_SHOWN = 20  # reasons of failures


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
    """Run a pipeline over the media of a folder; a fleet is started only where there is something to do."""
    console = stderr()
    with folder_run(folder, out, spec, models, variant, overwrite, only_new) as work, Progress(console) as progress:
        if work.first():
            asyncio.run(_run(settings, work, workers, priority, progress))
    console.print(_summary(work.tally, out))
    return ExitCode.SOME_FAILED if work.tally.failed else ExitCode.OK


async def _run(settings: "Settings", work: FolderRun, workers: int, priority: "Priority", progress: Progress) -> None:
    with acknowledged():
        async with local_fleet(settings, workers, progress) as fleet:
            await work.run(fleet, priority, progress)


def _summary(tally: "Tally", out: Path) -> RenderableType:
    """Counts in one line, and below it what there is to say of single files."""
    said = [f"{tally.done:,} done" + (f" ({tally.copies:,} by a copy)" if tally.copies else "")]
    for number, what in (
        (tally.known, "done before"),
        (tally.kept, "kept (they have files that this command did not write: --overwrite replaces them)"),
        (tally.no_media, "no media"),
        (len(tally.failed), "failed"),
    ):
        said += [f"{number:,} {what}"] if number else []
    lines = [cell(f"{name}: left alone: {reason}", "yellow") for name, reason in tally.skipped[:_SHOWN]]
    reasons: dict[str, list[str]] = {}
    for name, reason in tally.failed:
        reasons.setdefault(reason, []).append(name)
    for reason, names in [*reasons.items()][:_SHOWN]:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines.append(cell(f"{names[0]}{more}: failed: {reason}", "red"))
    return Group(cell(f"{out}: {', '.join(said)}"), *lines)
