"""What a command shows of its jobs: each line is there, in a window of 80 columns, with no word broken."""

import io
from pathlib import Path

from rich.console import Console

from cli.progress import summary
from schemas.errors import MediaError
from schemas.jobs import JobRef
from schemas.results import Done
from workers.inputs import JobOutcome

JOB = JobRef(id="j", pipeline="scenes", revision="0" * 16)
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
    Console(file=text, width=columns).print(summary(outcomes(), rates))
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
