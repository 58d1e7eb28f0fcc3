"""What a command shows of its jobs: each line is there, in a window of 80 columns, with no word broken."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli.outcomes import remarks, summary
from cli.progress import Progress
from schemas.errors import MediaError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.results import Done
from workers.inputs import JobOutcome

JOB = JobRef(id="j", pipeline="scenes", revision="0" * 16)
VIDEO = MediaInfo(kind="video", time_base=(1, 25), frame_rate=(25, 1), end=200)
NOTE = "film.mp4: 3 frames are damaged or missing, between 0.16 and 0.24 s"
REFUSED = MediaError("notes.txt is not media of a format that rigflow reads", "send video as mp4, mkv or webm")


def outcomes() -> list[JobOutcome]:
    film = JobOutcome("film.mp4", JOB, [], [], Path("results/film.scenes"), seconds=2.0)
    files = ("film.scenes.jsonl", "film.scenes.png")
    notes = (NOTE, "the sound is left out")
    film.done = Done(job=JOB, segments=1, frames=100, lost=3, files=files, notes=notes, failures=("segment 4: broken",))
    return [film, JobOutcome("notes.txt", JOB, [], [], error=REFUSED)]


def shown(columns: int, rates: bool = True) -> str:
    text = io.StringIO()
    Console(file=text, width=columns).print(summary(outcomes(), rates), "", *remarks(outcomes()), sep="\n")
    return text.getvalue()


def test_a_table_has_the_counts_and_lines_below_it_have_the_words() -> None:
    rows = [line.split() for line in shown(200).splitlines()]
    assert rows[0] == ["file", "frames", "lost", "frames/s", "result"]
    assert rows[1] == ["film.mp4", "100", "3", "50", "results/film.scenes.jsonl,", "results/film.scenes.png"]
    assert rows[2] == ["notes.txt", "failed"]
    lines = [line.rstrip() for line in shown(200).splitlines()]
    assert lines[3] == ""
    assert lines[4:] == ["film.mp4: failed: segment 4: broken", NOTE, "film.mp4: the sound is left out", str(REFUSED)]


def test_what_was_only_fetched_has_no_rate() -> None:
    assert "frames/s" not in shown(200, rates=False)
    assert shown(200, rates=False).splitlines()[1].split()[:4] == ["film.mp4", "100", "3", "results/film.scenes.jsonl,"]


def test_slow_work_has_a_decimal() -> None:
    (film, _) = outcomes()
    film.seconds = 200.0
    text = io.StringIO()
    Console(file=text, width=100).print(summary([film]))
    assert text.getvalue().splitlines()[1].split()[3] == "0.5"


def test_no_word_is_broken_in_a_narrow_window() -> None:
    assert set(shown(200).split()) == set(shown(80).split())


@pytest.mark.parametrize(
    ("parts", "silent_s", "output"),
    [
        (0, 65.0, "2 of 2 in process 1 min 5 s, no result yet"),
        (20, 0.0, "2 of 2 in process 1 min 5 s, 0.3 frames/s"),
        (20, 40.0, "2 of 2 in process 1 min 5 s, last result 40 s ago"),
        (100, 0.0, "1 of 2 in process 1 min 5 s, 1.5 frames/s"),
    ],
)
def test_a_long_segment_shows_what_is_done_of_it_and_for_how_long(
    monkeypatch: pytest.MonkeyPatch, parts: int, silent_s: float, output: str
) -> None:
    """A film of 8 s in two segments, a part a frame: its bar grows with each part, long before a segment is done."""
    [film, _] = outcomes()
    film.done, now_s = None, 1000.0
    text = io.StringIO()
    progress = Progress(Console(file=text, width=100))
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress.planned([film])
    progress.sent(JOB.id, 8.0, 2)
    now_s += 65.0 - silent_s
    for number in range(parts):
        key = Key(job=JOB, segment=number // 100, part=number % 100, last=number % 100 == 99)
        progress.part(JOB.id, PartMeta(key=key, media=VIDEO, pts=(number,), frames=1))
    now_s += silent_s
    Console(file=text, width=100).print(progress.shown())
    [row] = text.getvalue().splitlines()
    name, _, rest = row.partition("  ")
    bar, _, words = rest.partition(output[0])
    assert (name, " ".join((output[0] + words).split())) == ("film.mp4", output)
    assert len(bar.strip()) == parts * 20 // 200


def test_a_film_that_is_drawn_shows_how_much_of_it_is_written() -> None:
    outcome = JobOutcome("film.mp4", JOB, [Path("film.mp4")], [])
    progress = Progress(Console(width=120, record=True, file=io.StringIO()))
    progress.planned([outcome])
    progress.share(JOB.id, 0.25)
    shown = io.StringIO()
    Console(width=120, file=shown).print(progress.shown())
    assert "files are written" in shown.getvalue()
    assert "25%" in shown.getvalue()
