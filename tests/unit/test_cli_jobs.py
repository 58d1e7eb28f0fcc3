"""The list of jobs in a window of 80 columns."""

import io
import time

from rich.console import Console

from cli.jobs import _rows
from schemas.jobs import JobRef, JobState, Manifest

LONG = "a very long name of a holiday in the mountains.mp4"


def job(number: int, name: str, **fields: object) -> Manifest:
    ref = JobRef(id=f"{number:020x}", pipeline="fingerprint", revision="0" * 16)
    return Manifest.model_validate({"job": ref, "name": name, "created_s": time.time() - 1030, **fields})


def shown(*listed: Manifest, columns: int = 80) -> list[list[str]]:
    text = io.StringIO()
    Console(file=text, width=columns).print(_rows(list(listed), time.time()))
    assert all(len(line.rstrip()) <= columns for line in text.getvalue().splitlines())
    return [line.split() for line in text.getvalue().splitlines()]


def test_each_job_is_one_line_with_both_ends_of_its_input() -> None:
    done = job(1, "clip.mp4", state=JobState.DONE, segments_done=3, total=3)
    titles, first, second = shown(done, job(2, LONG, state=JobState.PUBLISHED))
    assert titles == ["job", "input", "pipeline", "state", "segments", "age"]
    assert first == [f"{1:020x}", "clip.mp4", "fingerprint", "done", "3/3", "17", "min"]
    assert " ".join(second).startswith(f"{2:020x} a very lon…ntains.mp4 ")
    assert second[-5:] == ["fingerprint", "published", "0/?", "17", "min"]


def test_counts_of_what_went_wrong_are_beside_it_where_there_are_any() -> None:
    titles, first, second = shown(
        job(1, LONG, state=JobState.FAILED, failures=2, lost=13, segments_done=3, total=3),
        job(2, LONG, state=JobState.CANCELLED),
    )
    assert titles == ["job", "input", "pipeline", "state", "segments", "lost", "failed", "age"]
    assert first[0] == f"{1:020x}"
    assert first[-6:] == ["failed", "3/3", "13", "2", "17", "min"]
    assert "cancelled" in second
    assert all(" ".join(each).split(" ", 1)[1].startswith("a very…s.mp4 ") for each in (first, second))


def test_no_name_is_shortened_in_a_wide_window() -> None:
    assert LONG in " ".join(shown(job(1, LONG), columns=200)[1])
