"""Answers of language models as OpenAI's objects: whole, or in pieces."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.responses import JSONResponse, Response

from gateway.openai.running import Asked, rows_of
from pipelines.growing_answer import GrowingAnswer
from pipelines.job import Job
from pipelines.job_events import TextWritten
from schemas.errors import MediaError


class Style(ABC):
    """The objects of one kind of request, with `n` choices for each question."""

    prefix: str

    def __init__(self, job: str, model: str, n: int) -> None:
        self._n = n
        self._head = {"id": f"{self.prefix}-{job}", "created": int(time.time()), "model": model}

    @abstractmethod
    def whole(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A choice of an answer that is complete."""

    @abstractmethod
    def first(self, number: int) -> dict[str, Any] | None:
        """A choice before its text; None where a stream begins with the text."""

    @abstractmethod
    def text(self, number: int, text: str) -> dict[str, Any]:
        """A choice of a piece of its text."""

    @abstractmethod
    def last(self, number: int, finish: str) -> dict[str, Any]:
        """A choice behind its text, with why that ended."""

    @abstractmethod
    def object(self, piece: bool) -> str:
        """The name of the kind of object."""

    def answer(self, choices: Sequence[dict[str, Any]], piece: bool = False, **more: Any) -> dict[str, Any]:
        """An object with choices."""
        return {**self._head, "object": self.object(piece), "choices": list(choices), **more}

    def usage(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Tokens of the questions, each of which is read once, and of all answers."""
        asked = sum(row["prompt_tokens"] for row in rows[:: self._n])
        written = sum(row["tokens"] for row in rows)
        return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


async def answered(asked: Asked, job: Job, style: Style) -> Response:
    """The answers of a job, once all are there. Raises MediaError where one has failed."""
    rows = _checked(await rows_of(await asked.files(job)))
    choices = [style.whole(number, row) for number, row in enumerate(rows)]
    return JSONResponse(style.answer(choices, usage=style.usage(rows)))


async def pieces(asked: Asked, job: Job, style: Style, choices: int, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
    """The answers of a job as they are written. Raises as `Asked.events`, MediaError where one has failed."""
    answers = [GrowingAnswer() for _ in range(choices)]
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    for number in range(choices):
        if (first := style.first(number)) is not None:
            yield style.answer([first], True, **usage)
    async with aclosing(asked.events(job)) as events:
        async for event in events:
            if isinstance(event, TextWritten) and event.delta.name.isdigit() and int(event.delta.name) < choices:
                number = int(event.delta.name)
                if new := answers[number].take(event.delta):
                    yield style.answer([style.text(number, new)], True, **usage)
    rows = _checked(await rows_of([file async for file in job.files()]))
    for number, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        if new := answer.finish(row["text"]):
            yield style.answer([style.text(number, new)], True, **usage)
        yield style.answer([style.last(number, row["finish"])], True, **usage)
    if with_usage:
        yield style.answer([], True, usage=style.usage(rows))


def _checked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        if "error" in row:
            raise MediaError(str(row["error"]))
    return rows
