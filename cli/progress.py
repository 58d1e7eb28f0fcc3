"""What `rigflow run` shows: a line per file with segments in process, time, frames a second, and why it waits."""

import time
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cli.text import age, cell
from schemas.parts import PartMeta
from schemas.text import rate
from workers.inputs import JobOutcome

ROWS = 12  # lines of files shown at once; finished files are not among them
SILENT_S = 2.0  # without a part for so long, a job's line says so


@dataclass(slots=True)
class _Row:
    """What is known of one job."""

    outcome: JobOutcome
    started_s: float
    sent: int = 0
    media_s: float = 0.0
    done_s: float = 0.0  # of the media, in parts that are done
    segments_done: int = 0
    frames: int = 0
    moved_s: float = 0.0
    share: float = 0.0  # of its files, once the parts are done


class Progress:
    """A live table of jobs on a terminal; plain lines for events where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.shown, transient=True)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def planned(self, outcomes: list[JobOutcome]) -> None:
        """These jobs are to be done."""
        now = time.monotonic()
        able = (each for each in outcomes if each.error is None)
        self._rows = {each.job.id: self._rows.get(each.job.id) or _Row(each, now, moved_s=now) for each in able}

    def sent(self, job: str, seconds: float, segments: int) -> None:
        """So much of a job's media is with the broker."""
        self._rows[job].sent = segments

    def part(self, job: str, meta: PartMeta) -> None:
        """A part of a job is done."""
        row = self._rows[job]
        row.frames += meta.frames
        row.segments_done += meta.key.last
        row.media_s = meta.media.duration_s
        start_s, end_s = meta.span_s
        row.done_s += end_s - start_s
        row.moved_s = time.monotonic()

    def share(self, job: str, share: float) -> None:
        """So much of a job's files is finished."""
        row = self._rows[job]
        row.share, row.moved_s = share, time.monotonic()

    def event(self, text: str) -> None:
        """A message for the user."""
        self._console.print(
            cell(text, "yellow"),
        )

    def shown(self) -> RenderableType:
        """The table now."""
        table = Table.grid(padding=(0, 2))
        unfinished = [row for row in self._rows.values() if row.outcome.done is None and row.outcome.error is None]
        finished = len(self._rows) - len(unfinished)
        for row in unfinished[:ROWS]:
            table.add_row(*_columns(row))
        hidden = len(unfinished) - ROWS
        if hidden > 0 or finished:
            rest = f"{finished} of {len(self._rows)} done" + (f", {hidden} more to come" if hidden > 0 else "")
            table.add_row(rest, "", "", "", style="dim")
        return table


def _columns(row: _Row) -> tuple[RenderableType, RenderableType, str, str]:
    now = time.monotonic()
    total, done = (row.media_s, row.done_s) if row.media_s else (max(row.sent, 1), row.segments_done)
    bar = ProgressBar(total=total, completed=min(done, total), width=20)  # by parts: a segment may take long
    counts = f"{row.sent - row.segments_done} of {row.sent} in process"
    if row.share:
        bar, counts = ProgressBar(total=1.0, completed=row.share, width=20), "files are written"
        return cell(row.outcome.name), bar, counts, f"{age(now - row.started_s)}, {row.share:.0%}"
    elapsed_s, silent_s = now - row.started_s, now - row.moved_s
    if silent_s <= SILENT_S:
        what = f"{rate(row.frames / max(0.001, elapsed_s))} frames/s"
    else:
        what = f"last result {age(silent_s)} ago" if row.frames else "no result yet"
    return cell(row.outcome.name), bar, counts, f"{age(elapsed_s)}, {what}"
