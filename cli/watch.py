"""`rigflow watch`: runs each file that arrives in a folder through a pipeline, once."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.chosen_pipeline import chosen_pipeline
from cli.interrupts import run_async
from cli.options import (
    Credentials,
    Interactive,
    ModelName,
    NatsUrl,
    Overwrite,
    OwnStore,
    PipelineName,
    SettingsFile,
    StageFields,
    Stream,
    Workers,
    ends_well,
    settings_from,
    workers_here,
)
from cli.output_folder import output_folder
from cli.run import OUT
from cli.text import say_json, say_sentence, stderr, warn
from schemas.errors import ExitCode, UsageError
from schemas.text import shell_word

if TYPE_CHECKING:
    from engines.outputs.template import OutTemplate
    from schemas.jobs import Priority
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.watched import Patterns


@ends_well
def watch(
    pipeline: PipelineName,
    folder: Annotated[Path, typer.Argument(help="Folder to watch, with the folders in it.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help=OUT, metavar="DIR")],
    overwrite: Overwrite = False,
    quiet: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a change until a file is complete.", metavar="SECONDS")
    ] = 2.0,
    include: Annotated[
        list[str] | None, typer.Option(help="Only such files, as '*.mp4' or 'cam1/*'; repeat it.", metavar="PATTERN")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No such files, as '*.upload'; repeat it.", metavar="PATTERN")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was done or failed before, once more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of json for each file, for programs.")] = False,
    workers: Workers = None,
    model: ModelName = None,
    fields: StageFields = None,
    stream: Stream = None,
    interactive: Interactive = False,
    nats: NatsUrl = None,
    store: OwnStore = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Run PIPELINE over every file that arrives in a folder.

    Also over those that are there already, until Ctrl-C or SIGTERM. A file is taken once it stopped growing. A copy of
    a file that was done is not done again, also after a restart: what was done is kept in a ledger beside the results.
    Files in DIR are only read; hidden files, *.part and *.tmp are left alone, and what is not media.

    The results of DIR/a/clip.mp4 are OUT/a/clip.PIPELINE.*. Existing results are kept. If the new ones are equal,
    nothing is added; if not, the new ones are written beside the old ones, as clip.mp4.PIPELINE.*. --overwrite replaces
    the old ones: give it if files change after they arrived.

    Example: rigflow watch fingerprint incoming --out results
    """
    from engines.needs import check_packages
    from engines.outputs.template import out_template
    from schemas.jobs import Priority
    from workers.watched import Patterns

    settings = settings_from(settings_file, nats=nats, store=store, credentials=credentials)
    if folder.exists() and not folder.is_dir():
        hint = f"watch a folder, or `rigflow run {shell_word(pipeline)} {shell_word(folder)}`"
        raise UsageError(f"{folder}: is a file", hint)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", "check the path, or make it")
    template = out_template(out)
    out = out if template is None else template.root
    if out.exists() and out.samefile(folder):
        raise UsageError(f"{out}: results would be taken for new files", "choose another --out")
    spec, models, variant = chosen_pipeline(pipeline, model, fields, stream, settings)
    workers = workers_here(settings, workers)
    check_packages(spec, {name: card for name, (card, _) in models.items()}, settings, computes=workers > 0)
    priority = Priority.INTERACTIVE if interactive else Priority.BULK
    patterns = Patterns(tuple(include or ()), tuple(exclude or ()))
    to = FolderOfResults(out, overwrite, again, template)
    with output_folder(out):
        return run_async(
            _watch(settings, spec, models, variant, folder, to, quiet, workers, priority, patterns, as_json)
        )


@dataclass(frozen=True, slots=True)
class FolderOfResults:
    """Where the results go; `again`: also of what was done before."""

    out: Path
    overwrite: bool
    again: bool
    template: "OutTemplate | None"


def _report(as_json: bool) -> Callable[..., None]:
    """A function that prints what became of a file on stdout, and what is about the fleet on stderr."""

    def report(text: str, **facts: Any) -> None:
        if not facts:
            warn(text)
        elif as_json:
            say_json(facts, lines=True)
        else:
            say_sentence(text)

    return report


async def _watch(
    settings: "Settings",
    spec: "PipelineSpec",
    models: "Models",
    variant: bool,
    folder: Path,
    to: FolderOfResults,
    quiet_s: float,
    workers: int,
    priority: "Priority",
    patterns: "Patterns",
    as_json: bool,
) -> ExitCode:
    from functools import partial

    from cli.progress import Progress
    from engines.outputs.names import OutputNames
    from pipelines.client import Client
    from workers.definitions import register, repair
    from workers.folder import FolderWatch
    from workers.ledger import Ledger, ledger_path
    from workers.local import local_fleet

    report, out = _report(as_json), to.out
    ledger = Ledger(ledger_path(out, spec.name), out)
    ledger.open()
    if to.again:
        ledger.forget_results()
    try:
        async with (
            local_fleet(settings, workers, Progress(stderr())) as fleet,
            Client.connected(fleet, name="rigflow-watch") as client,
        ):
            broker = client.broker
            mend = partial(repair, broker, fleet, spec, models, variant)
            spec = await register(broker, fleet, spec, models, variant)
            ledger.revision = spec.revision
            with OutputNames(out, to.overwrite) as names:
                watching = FolderWatch(
                    client, spec, priority, folder, out, ledger, names, quiet_s, report, mend, patterns, to.template
                )
                warn(f"watches {folder} for {spec.name}, results go to {out}; Ctrl-C stops it")
                await _until_stopped(watching.run(), lambda: watching.has_work)
    finally:
        ledger.close()
    return ExitCode.OK


async def _until_stopped(work: Coroutine[Any, Any, None], has_work: Callable[[], bool]) -> None:
    """Run until SIGINT or SIGTERM. Files in process then are not in the ledger: the next start processes them."""
    running = asyncio.create_task(work)

    def stop() -> None:
        if not running.cancelling():
            again = "; files that are not done yet are begun again at the next start"
            warn(f"stopping{again if has_work() else ''}")
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
