"""`rigflow run`: media in, results out, by one command."""

from pathlib import Path
from typing import Annotated

import typer

from cli.chosen_pipeline import chosen_pipeline
from cli.options import (
    Credentials,
    Interactive,
    Json,
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
from schemas.errors import ExitCode

OUT = "Folder for the results; made if missing. Or a template, as 'results/{folder}/{stem}.{pipeline}.{ext}'."


@ends_well
def run(
    pipeline: PipelineName,
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Files that the pipeline takes, folders, or - for standard input.", metavar="INPUT..."),
    ],
    out: Annotated[
        Path | None, typer.Option(help=f"{OUT} Default: the current folder.", metavar="DIR", show_default=False)
    ] = None,
    keep_tree: Annotated[
        bool, typer.Option("--keep-tree", help="Of files too: results in the folders that the files are in.")
    ] = False,
    workers: Workers = None,
    overwrite: Overwrite = False,
    only_new: Annotated[bool, typer.Option("--only-new", help="Of a folder: not what was done before.")] = False,
    model: ModelName = None,
    fields: StageFields = None,
    stream: Stream = None,
    interactive: Interactive = False,
    as_json: Json = False,
    nats: NatsUrl = None,
    store: OwnStore = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Run PIPELINE over files; the results go into one folder.

    Without --nats and RIGFLOW_NATS a broker and workers are started here for the time of the run. The result of
    clip.mp4 is clip.PIPELINE.*. Existing results are kept. If the new ones are equal, nothing is added; if not, the new
    ones are written beside the old ones, as clip.mp4.PIPELINE.*. --overwrite replaces the old ones.

    Of a folder, all its media are run, those in folders inside too. Results lie at the same places under --out, which
    may be the folder itself; of several folders, each in a folder of its name. --only-new leaves out what has its
    result by this pipeline, model and settings.

    Of -, media come from standard input. The answer to a text goes to standard output, unless --out is given.

    Example: rigflow run fingerprint holiday.mp4 --out results
    """
    from workers.forkserver import start_fork_server

    settings = settings_from(settings_file, nats=nats, store=store, credentials=credentials)
    workers = workers_here(settings, workers)
    if workers:
        start_fork_server()  # it imports what workers need while we import what we need

    from cli.run_task import checked_inputs, run_task
    from cli.task import Task
    from engines.needs import check_packages
    from engines.outputs.template import out_template
    from schemas.jobs import Priority

    inputs = checked_inputs(inputs, only_new)  # a wrong path is reported before a model that is missing
    files = [path for path in inputs if path.is_file()]
    spec, models, variant = chosen_pipeline(pipeline, model, fields, stream, settings, files)
    check_packages(spec, {name: card for name, (card, _) in models.items()}, settings, computes=workers > 0)
    priority = Priority.INTERACTIVE if interactive else Priority.BULK
    folder = out or Path(".")
    template = out_template(folder, keep_tree)
    root = folder if template is None else template.root
    shows = out is None
    task = Task(settings, spec, models, variant, workers, priority, root, overwrite, only_new, template, shows)
    return run_task(task, inputs, as_json)
