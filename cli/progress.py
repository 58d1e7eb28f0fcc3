"""What a command shows of its jobs: a live table in a terminal, and where there is none a line every 10 s."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cli.interrupts import display
from cli.text import age, cell, is_quiet, one_line
from schemas.parts import PartMeta
from schemas.text import count, rate
from workers.inputs import JobOutcome

ROWS = 12  # lines of files shown at once; finished files are not among them
SILENT_S = 2.0  # without a part for so long, a job's line says so
EVERY_S = 10.0  # between lines where there is no terminal
LEAST_S, LEAST_SHARE = 1.0, 0.01  # before so much is done, nothing is said of the time that is left


@dataclass(slots=True)
class _Pace:
    """How fast a share of work grows, from the first moment when there was some of it."""

    since_s: float = 0.0
    from_share: float = -1.0

    def left_s(self, share: float, now_s: float) -> float | None:
        """Seconds until the share is 1, at this pace; None while that cannot be said."""
        if self.from_share < 0 and share > 0:
            self.since_s, self.from_share = now_s, share
        took_s, grew = now_s - self.since_s, share - self.from_share
        if self.from_share < 0 or took_s < LEAST_S or grew < LEAST_SHARE:
            return None
        return max(0.0, 1.0 - share) * took_s / grew


class _Row:
    """What is known of one job."""

    def __init__(self, outcome: JobOutcome, now_s: float) -> None:
        self.outcome = outcome
        self.started_s = self.moved_s = now_s
        self.sent = self.segments_done = self.frames = 0
        self.media_s = self.sent_s = self.done_s = 0.0  # of the media, in segments sent, and in parts that are done
        self.written = 0.0  # share of its files, once the parts are done
        self.pace = _Pace()

    @property
    def over(self) -> bool:
        """Whether the job is done, or failed."""
        return self.outcome.done is not None or self.outcome.error is not None

    @property
    def share(self) -> float:
        """How much of the job is done: by parts where the length of the media is known, or by segments. Parts of sound
        in which nobody speaks have no times.
        """
        if self.over:
            return 1.0
        by_segments = self.segments_done / max(self.sent, 1)
        if not self.media_s:
            return min(1.0, by_segments)
        of_sent = self.sent_s / self.media_s if self.sent_s else 1.0
        return min(1.0, max(self.done_s / self.media_s, by_segments * of_sent))

    def state(self, now_s: float) -> tuple[str, str, str]:
        """Percent, rate and the time that is left, in words; empty where they are unknown."""
        if self.written:
            return f"{self.written:.0%}", "writes its files", ""
        elapsed_s, silent_s = now_s - self.started_s, now_s - self.moved_s
        left_s = self.pace.left_s(self.share, now_s)
        if not self.frames:
            return "", f"no result yet, {age(elapsed_s)}", ""
        if self.share >= 1.0:
            return "100%", "all parts are done", ""
        if silent_s > SILENT_S:
            return f"{self.share:.0%}", f"last result {age(silent_s)} ago", ""
        speed = f"{rate(self.frames / max(0.001, elapsed_s))} frames/s"
        return f"{self.share:.0%}", speed, "" if left_s is None else f"{age(left_s)} left"


class Progress:
    """Follows jobs: `planned`, `sent`, `part`, `share` and `event` are called while they run. What comes of a job that
    is not among the last that were planned, because it failed, is not shown.

    `clock` gives monotonic seconds. Where there is no terminal a thread calls `tick` every second; tests call it.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._files_over: int | None = None  # of a folder, whose further jobs are not known
        self._pace = _Pace()
        self._printed_s = clock()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.shown, transient=True)
        self._shown = ExitStack()
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick_on, daemon=True)

    def __enter__(self) -> "Progress":
        if is_quiet():
            return self
        if self._console.is_terminal:
            self._shown.enter_context(display(self._live.stop))
            self._live.start()
        else:
            self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._shown.close()
        if self._ticking.is_alive():
            self._ticking.join()

    def planned(self, outcomes: list[JobOutcome], files_over: int | None = None) -> None:
        """These jobs are to be done; of a folder, whose `files_over` are done or failed, those at work."""
        self._files_over = files_over
        now_s = self._clock()
        able = (each for each in outcomes if each.error is None)
        self._rows = {each.job.id: self._rows.get(each.job.id) or _Row(each, now_s) for each in able}

    def sent(self, job: str, seconds: float, segments: int) -> None:
        """So much of a job's media is with the broker."""
        if (row := self._rows.get(job)) is not None:
            row.sent, row.sent_s = segments, seconds

    def part(self, job: str, meta: PartMeta) -> None:
        """A part of a job is done."""
        if (row := self._rows.get(job)) is None:
            return
        row.frames += meta.frames
        row.segments_done += meta.key.last
        row.media_s = meta.media.duration_s
        start_s, end_s = meta.span_s
        row.done_s += end_s - start_s
        row.moved_s = self._clock()
        row.pace.left_s(row.share, row.moved_s)

    def share(self, job: str, share: float) -> None:
        """So much of a job's files is finished."""
        if (row := self._rows.get(job)) is not None:
            row.written, row.moved_s = share, self._clock()

    def event(self, text: str) -> None:
        """A message for the user."""
        if not is_quiet():
            self._console.print(cell(text, "yellow"), soft_wrap=not self._console.is_terminal)

    def tick(self) -> None:
        """Print a line if the last one is `EVERY_S` old, and there is work."""
        now_s = self._clock()
        if now_s - self._printed_s >= EVERY_S and (line := self.line(now_s)):
            self._console.print(cell(line), soft_wrap=True)
            self._printed_s = now_s

    def line(self, now_s: float) -> str:
        """How far all jobs together are; empty while there are none."""
        unfinished = [row for row in list(self._rows.values()) if not row.over]
        if not unfinished:
            return ""
        if len(self._rows) == 1 and not self._files_over:
            return f"{unfinished[0].outcome.name}: {_words(unfinished[0].state(now_s))}"
        rows = list(self._rows.values())
        share = sum(row.share for row in rows) / len(rows)
        left_s = self._pace.left_s(share, now_s)
        frames = sum(row.frames for row in rows)
        speed = f"{rate(frames / max(0.001, now_s - min(row.started_s for row in rows)))} frames/s"
        speed = speed if frames else "no result yet"
        if self._files_over is not None:
            return _words(
                (f"{count(self._files_over, 'file')} done or failed, {count(len(unfinished), 'job')} at work", speed)
            )
        left = "" if left_s is None else f"{age(left_s)} left"
        done = f"{len(rows) - len(unfinished):,} of {count(len(rows), 'job')} done"
        return _words((done, f"{share:.0%}", speed, left))

    def shown(self) -> RenderableType:
        """The table now, for a terminal."""
        now_s = self._clock()
        table = Table.grid(padding=(0, 2))
        table.add_column(overflow="ellipsis")  # the one that a narrow window makes narrower
        for _ in range(4):
            table.add_column(no_wrap=True)
        rows = list(self._rows.values())
        unfinished = [row for row in rows if not row.over]
        for row in unfinished[:ROWS]:
            percent, speed, left = row.state(now_s)
            bar = ProgressBar(total=1.0, completed=row.written or row.share, width=16)
            table.add_row(one_line(row.outcome.name), bar, percent, speed, left)
        if unfinished and (len(rows) > 1 or self._files_over):
            hidden = len(unfinished) - ROWS
            more = f"; {hidden:,} more wait" if hidden > 0 else ""
            return Group(table, cell(f"{self.line(now_s)}{more}", "dim"))
        return table

    def _tick_on(self) -> None:
        while not self._over.wait(1.0):
            self.tick()


class LoggedProgress(Progress):
    """Writes events to the log."""

    def event(self, text: str) -> None:
        """A warning for the user."""
        logging.getLogger("rigflow").warning(text)


def _words(parts: tuple[str, ...]) -> str:
    return ", ".join(filter(None, parts))
