"""What a command shows of its jobs: each line is there, in a window of 80 columns, with no word broken."""

import io
from dataclasses import replace
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
REFUSED = MediaError("notes.txt is no video, sound or picture that rigflow reads", "send video as mp4, mkv or webm")


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
    assert set(shown(200).replace(",", "").split()) == set(shown(80).replace(",", "").split())


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def following(time: Time, outcomes: list[JobOutcome], terminal: bool = False) -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    progress = Progress(Console(file=text, width=80, force_terminal=terminal), time)
    progress.planned(outcomes)
    return progress, text


def a_part(progress: Progress, number: int, job: JobRef = JOB) -> None:
    """A part of a frame, of a film of 8 s in two segments."""
    key = Key(job=job, segment=number // 100, part=number % 100, last=number % 100 == 99)
    progress.part(job.id, PartMeta(key=key, media=VIDEO, pts=(number,), frames=1))


def row_of(progress: Progress, columns: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=columns).print(progress.shown())
    return text.getvalue().splitlines()[0].rstrip()


@pytest.mark.parametrize(
    ("parts", "silent_s", "output"),
    [
        (0, 65.0, "no result yet, 1 min 5 s"),
        (20, 0.0, "10% 0.3 frames/s 10 min 6 s left"),
        (20, 40.0, "10% last result 40 s ago"),
        (100, 0.0, "50% 1.5 frames/s 1 min 5 s left"),
    ],
)
def test_a_long_segment_shows_what_is_done_of_it_and_for_how_long(parts: int, silent_s: float, output: str) -> None:
    """Its bar grows with each part, long before a segment is done; the parts come evenly from the first second on."""
    [film, _] = outcomes()
    film.done, clock = None, Time()
    progress, _ = following(clock, [film])
    progress.sent(JOB.id, 8.0, 2)
    for number in range(parts):
        clock.now_s = 1000.0 + (65.0 - silent_s - 1) * (number / max(1, parts - 1)) + 1
        a_part(progress, number)
    clock.now_s = 1065.0
    name, *words = row_of(progress).split()
    assert name == "film.mp4"
    bar = [word for word in words if set(word) <= set("━╸╺")]
    assert [word for word in words if word not in bar] == output.split()
    assert sum(word.count("━") for word in bar) == parts * 16 // 200


@pytest.mark.parametrize(("sent_s", "segments", "percent"), [(2.0, 1, "25%"), (8.0, 4, "25%"), (0.0, 4, "25%")])
def test_parts_without_times_count_by_their_segments(sent_s: float, segments: int, percent: str) -> None:
    """Of sound in which nobody speaks; `results` says how many segments there are, and no seconds."""
    progress, _ = following(Time(), [JobOutcome("talk.flac", JOB, [], [])])
    progress.sent(JOB.id, sent_s, segments)
    progress.part(JOB.id, PartMeta(key=Key(job=JOB, segment=0, part=0, last=True), media=VIDEO, frames=50))
    assert percent in row_of(progress).split()


def test_a_film_that_is_drawn_shows_how_much_of_it_is_written() -> None:
    progress, _ = following(Time(), [JobOutcome("film.mp4", JOB, [Path("film.mp4")], [])])
    progress.share(JOB.id, 0.25)
    assert row_of(progress).split()[-4:] == ["25%", "writes", "its", "files"]


def test_a_long_name_is_shortened_and_the_numbers_are_not() -> None:
    clock = Time()
    progress, _ = following(clock, [JobOutcome(f"{'long' * 40}[/].mp4", JOB, [], [])])
    progress.sent(JOB.id, 8.0, 2)
    a_part(progress, 0)
    clock.now_s += 1.0
    row = row_of(progress)
    assert len(row) <= 80
    assert "…" in row
    assert row.endswith("1.0 frames/s")


def test_without_a_terminal_there_is_a_line_every_ten_seconds() -> None:
    clock = Time()
    progress, text = following(clock, [JobOutcome("[/]film.mp4", JOB, [], [])])
    progress.sent(JOB.id, 8.0, 2)
    for second in range(31):
        clock.now_s = 1000.0 + second
        if second > 10:
            a_part(progress, second)
        progress.tick()
    assert text.getvalue().splitlines() == [
        "[/]film.mp4: no result yet, 10 s",
        "[/]film.mp4: 5%, 0.5 frames/s, 3 min 10 s left",
        "[/]film.mp4: 10%, 0.7 frames/s, 3 min 0 s left",
    ]


def test_several_jobs_have_one_line_and_none_once_they_are_over() -> None:
    clock, other = Time(), JobRef(id="k", pipeline="scenes", revision="0" * 16)
    films = [JobOutcome("a.mp4", JOB, [], []), JobOutcome("b.mp4", other, [], [])]
    progress, text = following(clock, films)
    for each in (JOB, other):
        progress.sent(each.id, 8.0, 2)
    a_part(progress, 0)
    clock.now_s += 5
    progress.line(clock.now_s)
    films[0].done = Done(job=JOB, segments=1, frames=200, lost=0)
    a_part(progress, 0, other)
    clock.now_s += 5
    progress.tick()
    assert text.getvalue() == "1 of 2 jobs done, 50%, 0.2 frames/s, 5 s left\n"
    films[1].done = Done(job=other, segments=1, frames=200, lost=0)
    clock.now_s += 50
    progress.tick()
    assert text.getvalue().count("\n") == 1


def test_the_line_about_all_jobs_is_as_wide_as_the_window() -> None:
    [film, _], clock = outcomes(), Time()
    film.done = None
    other = replace(film, job=JOB.model_copy(update={"id": "other"}))
    progress, _ = following(clock, [film, other])
    progress.sent(JOB.id, 8.0, 2)
    a_part(progress, 0)
    clock.now_s += 3.0
    Console(file=(text := io.StringIO()), width=80).print(progress.shown())
    assert text.getvalue().splitlines()[-1].rstrip() == progress.line(clock.now_s)


def test_of_a_folder_it_is_said_how_many_files_are_over_and_nothing_of_jobs_that_are_not_known() -> None:
    clock = Time()
    films = [JobOutcome("a.mp4", JOB, [], []), JobOutcome("b.mp4", JOB.model_copy(update={"id": "k"}), [], [])]
    progress, _ = following(clock, films)
    progress.planned(films, 0)
    assert progress.line(clock.now_s) == "0 files done or failed, 2 jobs at work, no result yet"
    a_part(progress, 0)
    clock.now_s += 5
    progress.planned(films[:1], 1024)
    assert progress.line(clock.now_s) == "1,024 files done or failed, 1 job at work, 0.2 frames/s"


def test_a_job_whose_parts_are_done_has_no_seconds_left_although_its_files_are_not_written() -> None:
    clock, film = Time(), JobOutcome("film.mp4", JOB, [], [])
    progress, _ = following(clock, [film])
    progress.sent(JOB.id, 8.0, 2)
    for number in range(200):
        clock.now_s += 0.1
        a_part(progress, number)
    clock.now_s += 60
    assert progress.line(clock.now_s) == "film.mp4: 100%, all parts are done"


def test_a_part_that_comes_after_its_job_failed_disturbs_nothing() -> None:
    """Of a folder: the next job is planned while the results of the one that failed are still on their way."""
    clock, other = Time(), JOB.model_copy(update={"id": "k"})
    films = [JobOutcome("a.mp4", JOB, [], []), JobOutcome("b.mp4", other, [], [])]
    progress, _ = following(clock, films)
    films[0].error = REFUSED
    progress.planned(films, 1)
    progress.sent(JOB.id, 8.0, 2)
    a_part(progress, 0)
    progress.share(JOB.id, 0.5)
    a_part(progress, 0, other)
    clock.now_s += 5
    assert progress.line(clock.now_s) == "1 file done or failed, 1 job at work, 0.2 frames/s"
