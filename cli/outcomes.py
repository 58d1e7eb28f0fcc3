"""What became of jobs: a table and remarks for people, facts for programs."""

from typing import Any

from rich.text import Text

from cli.tables import Given, Rows, list_of
from cli.text import cell, is_quiet, line_about, one_line
from schemas.fields import clean_name
from schemas.results import Done
from schemas.text import count, rate
from workers.inputs import JobOutcome

FAILURES = 5  # of a job that are shown


def summary(outcomes: list[JobOutcome], rates: bool = True) -> Rows:
    """The table at the end of a command, a row per job.

    `rates`: with the frames a second of each, where the command saw the job from its beginning.
    """
    titles = ("file", "frames", "lost", *(("frames/s",) if rates else ()), "result")
    return list_of(titles, [_row(each, rates) for each in outcomes], words=("file", "result"), named=("file",), gap=2)


def _row(outcome: JobOutcome, rates: bool) -> list[Given]:
    done, name = outcome.done, one_line(outcome.name)
    if done is None:
        return [name, *[""] * (2 + rates), cell("failed", "red")]
    files = files_of(outcome) or ["nothing"]
    files += [f"and {done.more_files:,} more"] if done.more_files else []
    lost = cell(f"{done.lost:,}", "yellow" if done.lost else "")
    speed = (rate(done.frames / max(outcome.seconds, 0.001)),) if rates else ()
    return [name, f"{done.frames:,}", lost, *speed, files]


def remarks(outcomes: list[JobOutcome]) -> list[Text]:
    """A line for each error and note of the jobs."""
    lines: list[Text] = []
    for outcome in outcomes:
        done = outcome.done
        if done is None:
            lines.append(line_about(outcome.name, str(outcome.error), "red"))
            continue
        lines += _failures(outcome, done)
        if done.failed > FAILURES:
            lines.append(line_about(outcome.name, count(done.failed - FAILURES, "more failure"), "red"))
        lines += [line_about(outcome.name, note, "yellow") for note in done.notes]
    return lines


def _failures(outcome: JobOutcome, done: Done) -> list[Text]:
    """A line for each of the first failures; that of several inputs together begins with how many of them failed."""
    shown, several = done.failures[:FAILURES], 1 < len(outcome.inputs) >= done.failed
    names = tuple(f"{clean_name(path.name)}: " for path in outcome.inputs)
    if not (several and all(text.startswith(names) for text in done.failures)):
        return [line_about(outcome.name, f"failed: {failure}", "red") for failure in shown]
    before = (f"{done.failed:,} of {outcome.name} ", *[""] * len(shown))
    return [cell(f"{start}failed: {failure}", "red") for start, failure in zip(before, shown, strict=False)]


def earlier_remarks(outcomes: list[JobOutcome]) -> list[Text]:
    """A line for results that equal earlier ones, and one for those that are beside earlier ones, which are kept."""
    lines = []
    for what, names in (
        ("equal results were there, and are kept", [each.name for each in outcomes if each.earlier.equal]),
        (
            "other results were there, and are kept; the new ones are beside them; --overwrite replaces them",
            [each.name for each in outcomes if each.earlier.kept],
        ),
    ):
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines += [cell(f"{names[0]}{more}: {what}", "yellow")] if names and not is_quiet() else []
    return lines


def files_of(outcome: JobOutcome) -> list[str]:
    """The paths of the files of a job that is done."""
    return [] if outcome.done is None else [str(outcome.target.parent / file) for file in outcome.done.files]


def facts_of(outcome: JobOutcome) -> dict[str, Any]:
    """What became of a job, for programs."""
    done = outcome.done
    facts: dict[str, Any] = {"input": outcome.name, "job": outcome.job.id, "inputs": list(map(str, outcome.inputs))}
    if done is None:
        return facts | {"state": "failed", "error": str(outcome.error), "files": []}
    return facts | {
        "state": done.state.value,
        "frames": done.frames,
        "lost": done.lost,
        "seconds": round(outcome.seconds, 3),
        "files": files_of(outcome),
        "earlier": "equal" if outcome.earlier.equal else "kept" if outcome.earlier.kept else None,
        "more_files": done.more_files,
        "failures": list(done.failures),
        "failed": done.failed,
        "notes": list(done.notes),
    }
