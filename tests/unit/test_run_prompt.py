"""What `rigflow run chat -` shows on a terminal while an answer is written."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.run_prompt import ShownAnswer
from pipelines.growing_answer import GrowingAnswer
from schemas.jobs import JobRef, Key
from schemas.results import Delta
from workers.inputs import JobOutcome

JOB = JobRef(id="j", pipeline="chat", revision="0")


def shown(capsys: pytest.CaptureFixture[str], shows: bool, *news: tuple[str, int, int, str]) -> tuple[str, list[str]]:
    """The text at the end, and what was written for each of the news: job, row, generation and text."""
    answer, written = ShownAnswer(shows), []
    answer.planned([JobOutcome("x", JOB, [Path("x")], [])])
    numbers: Counter[tuple[str, int, int]] = Counter()
    for job, row, generation, text in news:
        key = Key(job=JOB.model_copy(update={"id": job}), segment=0)
        delta = Delta(key=key, generation=generation, row=row, name="", number=numbers[job, row, generation], text=text)
        numbers[job, row, generation] += 1
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


def test_nothing_is_shown_after_a_delta_that_did_not_arrive() -> None:
    answer = GrowingAnswer()
    for number, text in ((0, "The cap"), (2, "of"), (3, " France")):
        answer.take(Delta(key=Key(job=JOB, segment=0), generation=1, row=0, number=number, text=text))
    assert answer.text == "The cap"
    assert answer.finish("The capital of France") == "ital of France"


def test_what_is_no_delta_is_left_out() -> None:
    message: Any = SimpleNamespace(data=b"x")
    asyncio.run(ShownAnswer(True).take(message))
