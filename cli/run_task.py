"""The work of `rigflow run`: files as jobs, folders with their media, standard input as a file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from cli.interrupts import CLEANING_UP, run_async
from cli.outcomes import earlier_remarks, facts_of, remarks, summary
from cli.output_folder import output_folder
from cli.progress import Progress
from cli.run_folder import folder_facts, folder_remarks, folder_results, folder_summary, no_media
from cli.run_prompt import run_prompt
from cli.stdin import STDIN, from_stdin, name_stdin
from cli.task import Task
from cli.text import say_json, stderr, stdout
from schemas.errors import ExitCode, UsageError
from workers.inputs import JobOutcome, input_error
from workers.local import local_fleet
from workers.run import run_jobs
from workers.run_folder import FolderRun, folder_run


def check_inputs(inputs: list[Path]) -> None:
    """Raises UsageError when none of them can be media; an error of one is reported with the results of the others."""
    errors = []
    for path in inputs:
        error = input_error(path)
        if error is None:  # the others are not checked: there may be thousands
            return
        errors.append(error)
    if errors:
        raise errors[0]


def exit_code(outcomes: list[JobOutcome]) -> ExitCode:
    """OK; where all failed for one reason, its code; else SOME_FAILED."""
    if all(outcome.ok for outcome in outcomes):
        return ExitCode.OK
    codes = {ExitCode.SOME_FAILED if outcome.error is None else outcome.error.exit_code for outcome in outcomes}
    return codes.pop() if len(codes) == 1 else ExitCode.SOME_FAILED


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder with its media, and the folder for its results."""

    folder: Path
    out: Path
    work: FolderRun


def checked_inputs(inputs: Sequence[Path], only_new: bool) -> list[Path]:
    """The inputs of a command line, each once. Raises UsageError for those that cannot be run."""
    folders = [path for path in inputs if path.is_dir()]
    files = [path for path in inputs if path not in folders]
    if only_new and (files or not folders):
        raise UsageError("--only-new is for folders", "give folders as INPUT")
    _check_names(list(dict.fromkeys(folders)))
    if files and STDIN not in files:
        check_inputs(files)
    return [*dict.fromkeys(inputs)]


def run_task(task: Task, inputs: Sequence[Path], as_json: bool) -> ExitCode:
    """Run all of `checked_inputs`, print what became of it, and return the exit code."""
    if inputs == [STDIN]:
        with from_stdin() as given:
            if given.text and task.shows_text:
                return run_prompt(task, given.path, as_json)
            return _run_inputs(task, inputs, as_json, given.path)
    with from_stdin() if STDIN in inputs else nullcontext() as given:
        return _run_inputs(task, inputs, as_json, given.path if given else STDIN)


def _run_inputs(task: Task, inputs: Sequence[Path], as_json: bool, stdin: Path) -> ExitCode:
    """`stdin`: the file of what came by standard input."""
    folders = [path for path in inputs if path.is_dir()]
    named = [stdin if path == STDIN else path for path in inputs if path not in folders]
    with ExitStack() as stack:
        stack.enter_context(output_folder(task.out))
        works = [stack.enter_context(_opened(task, folder, len(inputs) == 1)) for folder in folders]
        progress = stack.enter_context(Progress(stderr()))
        outcomes: list[JobOutcome] = []
        begun = [each for each in works if each.work.first()]
        if named or begun:
            outcomes = run_async(_run(task, named, begun, progress), CLEANING_UP)
    for outcome in outcomes:
        if stdin in outcome.inputs and outcome.error is not None:
            name_stdin(outcome.error, stdin)
        outcome.inputs = [STDIN if path == stdin else path for path in outcome.inputs]
    return _answer(task, outcomes, works, as_json)


async def _run(task: Task, files: list[Path], folders: Sequence[_Folder], progress: Progress) -> list[JobOutcome]:
    outcomes: list[JobOutcome] = []
    async with local_fleet(task.settings, task.workers, progress) as fleet:
        if files:
            outcomes = await run_jobs(
                fleet,
                task.spec,
                task.models,
                files,
                task.out,
                task.priority,
                progress,
                task.overwrite,
                task.variant,
                task.template,
            )
        for each in folders:
            await each.work.run(fleet, task.priority, progress)
    return outcomes


def _answer(task: Task, outcomes: list[JobOutcome], folders: Sequence[_Folder], as_json: bool) -> ExitCode:
    """Print the results on stdout, and on stderr what there is to say of them."""
    tallies = [each.work.tally for each in folders]
    if as_json:
        counted = [folder_facts(each.work.tally, each.folder, each.out) for each in folders]
        say_json({"jobs": list(map(facts_of, outcomes)), "folders": counted})
    else:
        _show(outcomes, folders, task.template is not None)
    for each in folders:
        if not each.work.tally.media:
            raise no_media(each.work.tally, each.folder, task.spec)
    failed = any(tally.failed or tally.failed_items for tally in tallies)
    return ExitCode.SOME_FAILED if failed else exit_code(outcomes)


def _show(outcomes: list[JobOutcome], folders: Sequence[_Folder], templated: bool) -> None:
    lines = remarks(outcomes) + ([] if templated else earlier_remarks(outcomes))
    if outcomes:
        stdout().print(summary(outcomes))
    for each in folders:
        lines += folder_remarks(each.work.tally)
        if each.work.tally.media:
            if (made := folder_results(each.work.tally)) is not None:
                stdout().print(made)
            stdout().print(folder_summary(each.work.tally, each.out))
    if lines:
        stderr().print(*lines, sep="\n")


def _check_names(folders: Sequence[Path]) -> None:
    """Raise UsageError if the results of two folders would lie in one."""
    for name, number in Counter(path.resolve().name for path in folders).items():
        if number > 1:
            raise UsageError(f"{number} folders are called {name}", "run each by itself, with another --out")


@contextmanager
def _opened(task: Task, folder: Path, alone: bool) -> Iterator[_Folder]:
    """A folder to be run; results of the only input lie in the folder of results itself."""
    out, template = task.out, task.template
    if not alone:
        out = out / folder.resolve().name
        template = template and replace(template, root=out)
    with (
        output_folder(out),
        folder_run(folder, out, task.spec, task.models, task.variant, task.overwrite, task.only_new, template) as work,
    ):
        yield _Folder(folder, out, work)
