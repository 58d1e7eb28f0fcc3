"""Answers of language models as OpenAI's objects: whole, or in pieces by server-sent events."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.openai.route import error_body
from gateway.openai.running import Asked, ClientGone, rows_of
from pipelines.growing_answer import GrowingAnswer
from pipelines.job import Job
from pipelines.job_events import TextWritten
from schemas.errors import MediaError, RigflowError

EVENTS = "text/event-stream"


class Style(ABC):
    """The objects of one kind of request."""

    prefix: str

    def __init__(self, job: str, model: str) -> None:
        self._head = {"id": f"{self.prefix}-{job}", "created": int(time.time()), "model": model}

    @abstractmethod
    def whole(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A choice of an answer that is complete."""

    @abstractmethod
    def piece(self, number: int, text: str | None, finish: str | None) -> dict[str, Any] | None:
        """A choice of a piece: of a text, or without one the first and the last; None: there is no such piece."""

    @abstractmethod
    def object(self, piece: bool) -> str:
        """The name of the kind of object."""

    def answer(self, choices: Sequence[dict[str, Any]], piece: bool = False, **more: Any) -> dict[str, Any]:
        """An object with choices."""
        return {**self._head, "object": self.object(piece), "choices": list(choices), **more}


async def answered(asked: Asked, job: Job, style: Style) -> Response:
    """The answers of a job, once all are there. Raises MediaError where one has failed."""
    rows = _checked(await rows_of(await asked.files(job)))
    choices = [style.whole(number, row) for number, row in enumerate(rows)]
    return JSONResponse(style.answer(choices, usage=_usage(rows)))


def streamed(asked: Asked, job: Job, style: Style, choices: int, with_usage: bool) -> Response:
    """The answers of a job as they are written."""
    pieces = _pieces(asked, job, style, choices, with_usage)
    return StreamingResponse(_events(pieces), media_type=EVENTS, headers={"Cache-Control": "no-cache"})


async def _pieces(
    asked: Asked, job: Job, style: Style, choices: int, with_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    answers = [GrowingAnswer() for _ in range(choices)]
    for number in range(choices):
        if (first := style.piece(number, None, None)) is not None:
            yield style.answer([first], True)
    async with aclosing(asked.events(job)) as events:
        async for event in events:
            if isinstance(event, TextWritten) and event.delta.name.isdigit() and int(event.delta.name) < choices:
                number = int(event.delta.name)
                if new := answers[number].take(event.delta):
                    yield style.answer([_there(style.piece(number, new, None))], True)
    rows = _checked(await rows_of([file async for file in job.files()]))
    for number, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        if new := answer.finish(row["text"]):
            yield style.answer([_there(style.piece(number, new, None))], True)
        yield style.answer([_there(style.piece(number, None, row["finish"]))], True)
    if with_usage:
        yield style.answer([], True, usage=_usage(rows))


async def _events(pieces: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Pieces as server-sent events; an error that comes late is an event as well."""
    try:
        async for piece in pieces:
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"
    except ClientGone:
        return
    except RigflowError as error:
        yield f"data: {json.dumps(error_body(error))}\n\n"
    yield "data: [DONE]\n\n"


def _there(piece: dict[str, Any] | None) -> dict[str, Any]:
    assert piece is not None
    return piece


def _checked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        if "error" in row:
            raise MediaError(str(row["error"]))
    return rows


def _usage(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Tokens of the question, which is read once, and of all answers."""
    prompt, written = max(row["prompt_tokens"] for row in rows), sum(row["tokens"] for row in rows)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
