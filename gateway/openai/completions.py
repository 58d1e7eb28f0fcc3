"""`/v1/completions`: the pipeline `complete`."""

from typing import Any, Literal

from fastapi import Request
from fastapi.responses import Response
from pydantic import JsonValue

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.answers import Style, answered, pieces
from gateway.openai.choices import AnswerFields
from gateway.openai.fields import check_offered, not_offered, texts_of
from gateway.openai.running import Asked
from gateway.openai.streams import streamed
from gateway.route import checked_router

router = checked_router(prefix="/v1", tags=["openai"])
MOST_PROMPTS = 256


class CompletionRequest(AnswerFields):
    """A text, or several, that are to be continued."""

    prompt: str | list[str] | list[int] | list[list[int]]
    best_of: Literal[1] | None = None
    echo: JsonValue = not_offered()
    suffix: JsonValue = not_offered()

    def lines(self) -> list[dict[str, Any]]:
        """A line of JSON for each choice: all those of a text, then those of the next. Raises UsageError."""
        prompts = texts_of("prompt", self.prompt, MOST_PROMPTS)
        each = [(text, number) for text in prompts for number in range(self.n)]
        return [self.line(number) | {"id": str(place), "prompt": text} for place, (text, number) in enumerate(each)]


class CompletionStyle(Style):
    """The objects of completions."""

    prefix = "cmpl"

    def whole(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A choice of a text that is complete."""
        return {"index": number, "text": row["text"], "finish_reason": row["finish"], "logprobs": None}

    def first(self, number: int) -> None:
        """Return None: a stream begins with the text."""

    def text(self, number: int, text: str) -> dict[str, Any]:
        """A choice of a piece of its text."""
        return {"index": number, "text": text, "finish_reason": None, "logprobs": None}

    def last(self, number: int, finish: str) -> dict[str, Any]:
        """A choice without text, and why it ended."""
        return {"index": number, "text": "", "finish_reason": finish, "logprobs": None}

    def object(self, piece: bool) -> str:
        """The name of the kind of object."""
        return "text_completion"


@router.post("/completions", response_model=None)
async def complete(request: Request, caller: Submitter, broker: Connected, wanted: CompletionRequest) -> Response:
    """Continue texts."""
    check_offered(wanted)
    asked = Asked(request, broker, caller)
    spec = await asked.pipeline("complete", wanted.model, {"encode.format": "jsonl"})
    lines = wanted.lines()
    job = await asked.ask(spec, lines)
    style = CompletionStyle(job.id, wanted.model or spec.name, wanted.n)
    if wanted.stream:
        return streamed(pieces(asked, job, style, len(lines), wanted.with_usage))
    return await answered(asked, job, style)
