"""What became of jobs: a table and remarks for people, facts for programs."""

from typing import Any

from rich.table import Table
from rich.text import Text

from cli.text import cell, is_quiet, line_about
from schemas.text import count, rate
from workers.inputs import JobOutcome

FAILURES = 5  # of a job that are shown


def summary(outcomes: list[JobOutcome], rates: bool = True) -> Table:
    """The table at the end of a command, a row per job.

    `rates`: with the frames a second of each, where the command saw the job from its beginning.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    rated = ("frames/s",) if rates else ()
    for title in ("file", "frames", "lost", *rated, "result"):
        words = title in ("file", "result")
        table.add_column(title, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for outcome in outcomes:
        done, name = outcome.done, cell(outcome.name)
        if done is None:
            table.add_row(name, *[""] * (2 + rates), Text("failed", "red"))
            continue
        more = f" and {done.more_files:,} more" if done.more_files else ""
        files = cell((", ".join(files_of(outcome)) or "nothing") + more)
        lost = cell(f"{done.lost:,}", "yellow" if done.lost else "")
        speed = (rate(done.frames / max(outcome.seconds, 0.001)),) if rates else ()
        table.add_row(name, f"{done.frames:,}", lost, *speed, files)
    return table


def remarks(outcomes: list[JobOutcome]) -> list[Text]:
    """A line for each error and note of the jobs."""
    lines: list[Text] = []
    for outcome in outcomes:
        done = outcome.done
        if done is None:
            lines.append(line_about(outcome.name, str(outcome.error), "red"))
            continue
        lines += [line_about(outcome.name, f"failed: {failure}", "red") for failure in done.failures[:FAILURES]]
        if done.failed > FAILURES:
            lines.append(line_about(outcome.name, count(done.failed - FAILURES, "more failure"), "red"))
        lines += [line_about(outcome.name, note, "yellow") for note in done.notes]
    return lines


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
        "state": "cancelled" if done.cancelled else "failed" if done.failures else "done",
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
