"""What `rigflow run chat -` shows on a terminal while an answer is written."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.run_prompt import ShownAnswer
from schemas.jobs import JobRef, Key
from schemas.results import Delta
from workers.inputs import JobOutcome

JOB = JobRef(id="j", pipeline="chat", revision="0")


def shown(capsys: pytest.CaptureFixture[str], shows: bool, *news: tuple[str, int, int, str]) -> tuple[str, list[str]]:
    """The text at the end, and what was written for each of the news: job, row, generation and text."""
    answer, written = ShownAnswer(shows), []
    answer.planned([JobOutcome("x", JOB, [Path("x")], [])])
    for job, row, generation, text in news:
        key = Key(job=JOB.model_copy(update={"id": job}), segment=0)
        delta = Delta(key=key, generation=generation, row=row, name="", number=0, text=text)
        message: Any = SimpleNamespace(data=delta.encode())
        asyncio.run(answer.take(message))
        written.append(capsys.readouterr().out)
    return answer.text, written


def test_text_is_shown_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    news = [("j", 0, 1, "The cap"), ("other", 0, 1, "no"), ("j", 1, 1, "no"), ("j", 0, 1, "ital")]
    assert shown(capsys, True, *news) == ("The capital", ["The cap", "", "", "ital"])
    assert shown(capsys, False, *news) == ("", [""] * 4), "a pipe gets the result alone"


def test_an_answer_that_is_begun_again_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    news = [("j", 0, 1, "one two"), ("j", 0, 2, "one"), ("j", 0, 1, " late"), ("j", 0, 2, " two three")]
    assert shown(capsys, True, *news) == ("one two three", ["one two", "", "", " three"])


def test_what_is_no_delta_is_left_out() -> None:
    message: Any = SimpleNamespace(data=b"x")
    asyncio.run(ShownAnswer(True).take(message))
