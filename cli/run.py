"""`rigflow run`: media in, results out, by one command."""

import asyncio
import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    Credentials,
    ModelName,
    NatsUrl,
    Overwrite,
    SettingsFile,
    StageFields,
    Stream,
    Workers,
    acknowledged,
    chosen_pipeline,
    ends_well,
    settings_from,
    workers_here,
)
from cli.text import stderr
from schemas.errors import ExitCode, OutputError, UsageError

if TYPE_CHECKING:
    from cli.progress import Progress
    from schemas.jobs import Priority
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.inputs import JobOutcome


@ends_well
def run(
    pipeline: Annotated[str, typer.Argument(help="A pipeline's name, or the path of its file.")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Files that the pipeline takes, a folder, or - for a text.", metavar="INPUT...")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.", metavar="DIR")] = Path("."),
    workers: Workers = None,
    overwrite: Overwrite = False,
    only_new: Annotated[bool, typer.Option("--only-new", help="Of a folder: not what was done before.")] = False,
    model: ModelName = None,
    fields: StageFields = None,
    stream: Stream = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Process it before the bulk work of a fleet.")
    ] = False,
    nats: NatsUrl = None,
    store: Annotated[str | None, typer.Option(help="Folder of the embedded broker's store.", metavar="DIR")] = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Run PIPELINE over files; the results go into one folder.

    Without --nats a broker and workers are started here for the time of the run. The result of clip.mp4 is
    clip.PIPELINE.*; where that name is taken, clip.mp4.PIPELINE.*, and so on: no file is replaced without --overwrite.

    Of a folder, all its media are run, those in folders inside too. Results lie at the same places under --out, which
    may be the folder itself. --only-new leaves out what has its result by this pipeline, model and settings.

    Of -, a text comes from standard input, and its answer goes to standard output.

    Example: rigflow run fingerprint holiday.mp4 --out results
    """
    from workers.forkserver import start_fork_server

    settings = settings_from(settings_file, nats=nats, store=store, credentials=credentials)
    workers = workers_here(settings, workers)
    if workers:
        start_fork_server()  # it imports what workers need while we import what we need

    from cli.progress import Progress, summary
    from engines.needs import check_packages
    from schemas.jobs import Priority

    spec, models, variant = chosen_pipeline(pipeline, model, fields, stream, settings.cache_folder)
    check_packages(spec, {name: card for name, (card, _) in models.items()}, settings, computes=workers > 0)
    if inputs == [Path("-")]:
        from cli.run_prompt import run_prompt

        return run_prompt(settings, spec, models, workers, variant)
    priority = Priority.INTERACTIVE if interactive else Priority.BULK
    if len(inputs) == 1 and inputs[0].is_dir():
        from cli.run_folder import run_folder

        with output_folder(out):
            return run_folder(settings, spec, models, variant, inputs[0], out, workers, priority, overwrite, only_new)
    if only_new:
        raise UsageError("--only-new is for a folder", "give one folder as INPUT")
    check_inputs(inputs)
    console = stderr()
    with output_folder(out), Progress(console) as progress:
        outcomes = asyncio.run(
            _run(settings, spec, models, inputs, out, workers, priority, progress, overwrite, variant)
        )
    console.print(summary(outcomes))
    return exit_code(outcomes)


def exit_code(outcomes: "list[JobOutcome]") -> ExitCode:
    """OK; where all failed for one reason, its code; else SOME_FAILED."""
    if all(outcome.ok for outcome in outcomes):
        return ExitCode.OK
    codes = {ExitCode.SOME_FAILED if outcome.error is None else outcome.error.exit_code for outcome in outcomes}
    return codes.pop() if len(codes) == 1 else ExitCode.SOME_FAILED


async def _run(
    settings: "Settings",
    spec: "PipelineSpec",
    models: "Models",
    inputs: list[Path],
    out: Path,
    workers: int,
    priority: "Priority",
    progress: "Progress",
    overwrite: bool,
    variant: bool,
) -> "list[JobOutcome]":
    from workers.local import local_fleet
    from workers.run import run_jobs

    with acknowledged():
        async with local_fleet(settings, workers, progress) as fleet:
            return await run_jobs(fleet, spec, models, inputs, out, priority, progress, overwrite, variant)


def check_inputs(inputs: list[Path]) -> None:
    """Raises UsageError when none of them can be media; an error of one is reported with the results of the others."""
    from workers.inputs import input_error

    errors = []
    for path in inputs:
        error = input_error(path)
        if error is None:  # the others are not checked: there may be thousands
            return
        errors.append(error)
    if errors:
        raise errors[0]


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """`prepare_folder` for a block; folders that it made are removed if the block wrote nothing."""
    clear = partial(_remove_empty, [folder for folder in (out, *out.parents) if not folder.exists()])
    atexit.register(clear)  # a second Ctrl-C may end the block before it cleans up, or while it does
    try:
        prepare_folder(out)
        yield
    finally:
        clear()
        atexit.unregister(clear)


def _remove_empty(folders: list[Path]) -> None:
    from engines.files import discard_all

    discard_all()
    with suppress(OSError):  # it is not empty
        for folder in folders:
            folder.rmdir()


def prepare_folder(out: Path) -> None:
    """Make the output folder. Raises OutputError when nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{out}: a file is where the folder would be", "choose another --out") from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}", "choose another --out") from error
    if not os.access(out, os.W_OK):
        raise OutputError(f"{out}: not writable", "choose another --out")
