"""What `rigflow run` says of the media of a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.tables import Given, Rows, list_of
from cli.text import cell, line_about, one_line
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.pipeline import PipelineSpec
    from workers.tally import Tally

_SHOWN = 20  # reasons of failures
_RESULTS = "skipped (results of an earlier run)"
_OTHER = "media of another kind"


def no_media(tally: "Tally", folder: Path, spec: "PipelineSpec") -> UsageError:
    """The error of a folder without media for a pipeline."""
    others = ((tally.other_media, _OTHER), (tally.no_media, "no media"), (tally.results, _RESULTS))
    there = ", ".join(f"{number:,} {what}" for number, what in others if number)
    what = f"{folder}: there is nothing to do in it{': ' * bool(there)}{there}"
    return UsageError(what, f"pipeline {spec.name} takes files of {' and '.join(spec.media)}")


def folder_summary(tally: "Tally", out: Path) -> Text:
    """Counts in one line."""
    of_those = (
        (tally.copies, "by a copy"),
        (tally.equal, "equal to earlier results"),
        (tally.beside, "beside earlier results, which are kept: --overwrite replaces them"),
    )
    more = ", ".join(f"{number:,} {what}" for number, what in of_those if number)
    said = [f"{tally.done:,} done{f' ({more})' * bool(more)}"]
    for number, what in (
        (tally.known, "done before"),
        (tally.results, _RESULTS),
        (tally.other_media, _OTHER),
        (tally.no_media, "no media"),
        (len(tally.failed), "failed"),
        (len(tally.skipped), "left alone"),
        (len(tally.failed_items), "of their lines failed"),
    ):
        said += [f"{number:,} {what}"] if number else []
    return cell(f"{out}: {', '.join(said)}")


def folder_results(tally: "Tally") -> "Rows | None":
    """The files that were made, of the first inputs; None where nothing was."""
    if not tally.made:
        return None
    titles, more = ("file", "result"), tally.done - tally.named
    rows: list[list[Given]] = [[one_line(name), files] for name, files in tally.made]
    rows += [[f"and {more:,} more", ""]] if more > 0 else []
    return list_of(titles, rows, words=titles, named=("file",), gap=2)


def folder_remarks(tally: "Tally") -> list[Text]:
    """What there is to say of single files, a line each."""
    lines = [cell(f"{name}: left alone: {reason}", "yellow") for name, reason in tally.skipped[:_SHOWN]]
    reasons: dict[str, list[str]] = {}
    for name, reason in (*tally.failed, *tally.failed_items):
        reasons.setdefault(reason, []).append(name)
    for reason, names in [*reasons.items()][:_SHOWN]:
        lines.append(cell(f"{_and_more(names[0], len(names))}: failed: {reason}", "red"))
    for text, (first, jobs) in tally.notes.items():
        lines.append(line_about(_and_more(first, jobs), text, "yellow"))
    return lines


def _and_more(first: str, count: int) -> str:
    return f"{first} and {count - 1:,} more" if count > 1 else first


def folder_facts(tally: "Tally", folder: Path, out: Path) -> dict[str, Any]:
    """What became of the media of a folder, for programs."""
    counts = {
        "done": tally.done,
        "copied": tally.copies,
        "done_before": tally.known,
        "equal": tally.equal,
        "beside": tally.beside,
        "results": tally.results,
        "no_media": tally.no_media,
        "other_media": tally.other_media,
    }
    failed = [{"file": name, "reason": reason} for name, reason in tally.failed]
    items = [{"item": name, "reason": reason} for name, reason in tally.failed_items]
    skipped = [{"file": name, "reason": reason} for name, reason in tally.skipped]
    made = [{"file": name, "files": list(files)} for name, files in tally.made]
    notes = [{"file": first, "jobs": jobs, "note": text} for text, (first, jobs) in tally.notes.items()]
    found = {"made": made, "failed": failed, "failed_items": items, "skipped": skipped, "notes": notes}
    return {"folder": str(folder), "out": str(out), **counts, **found}
