"""`/v1/chat/completions`: the pipeline `chat`, its answer whole or as it is written."""

from typing import Any, Literal

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.answers import Style, answered, pieces
from gateway.openai.choices import AnswerFields, ResponseFormat
from gateway.openai.errors import NotOffered
from gateway.openai.fields import Unused, check_neutral, check_offered, not_offered
from gateway.openai.running import Asked
from gateway.openai.streams import streamed
from gateway.route import checked_router

router = checked_router(prefix="/v1", tags=["openai"])
_ROLES = {"developer": "system", "function": "tool"}


class ContentPart(BaseModel):
    """A piece of a message; of the types that OpenAI has, text alone is offered."""

    model_config = ConfigDict(extra="allow")
    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Unused = None
    refusal: Unused = None
    annotations: Unused = None
    tool_call_id: Unused = None
    tool_calls: JsonValue = None
    function_call: JsonValue = None
    audio: JsonValue = None

    @property
    def turn(self) -> dict[str, str]:
        """The message as the fleet has it. Raises NotOffered for pictures, sound and calls of tools."""
        for name in ("tool_calls", "function_call", "audio"):
            check_neutral(f"{name} of a message", getattr(self, name))
        parts = [] if self.content is None else self.content
        if not isinstance(parts, str):
            if other := next((part.type for part in parts if part.type not in ("text", "refusal")), None):
                raise NotOffered(f"messages with {other[:100]} are not offered", "send text", "messages")
            parts = "\n".join(part.text for part in parts)
        return {"role": _ROLES.get(self.role, self.role), "content": parts}


class ChatRequest(AnswerFields):
    """A conversation that is to be continued."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    response_format: ResponseFormat | None = None
    metadata: Unused = None
    store: Unused = None
    service_tier: Unused = None
    parallel_tool_calls: Unused = None
    prompt_cache_key: Unused = None
    prompt_cache_options: Unused = None
    prompt_cache_retention: Unused = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: JsonValue = not_offered()
    functions: JsonValue = not_offered()
    function_call: JsonValue = not_offered()
    moderation: JsonValue = not_offered()
    prediction: JsonValue = not_offered()
    reasoning_effort: JsonValue = not_offered()
    tools: JsonValue = not_offered()
    tool_choice: JsonValue = not_offered()
    top_logprobs: JsonValue = not_offered()
    verbosity: JsonValue = not_offered()
    web_search_options: JsonValue = not_offered()

    def lines(self) -> list[dict[str, Any]]:
        """A line of JSON for each choice. Raises NotOffered, UsageError."""
        further: dict[str, Any] = {"messages": [message.turn for message in self.messages]}
        if self.max_completion_tokens is not None:
            further["max_tokens"] = self.max_completion_tokens
        if self.response_format is not None and (grammar := self.response_format.grammar) is not None:
            further["json_schema"] = grammar
        return [self.line(number) | further for number in range(self.n)]


class ChatStyle(Style):
    """The objects of a chat."""

    prefix = "chatcmpl"

    def whole(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A choice of an answer that is complete."""
        message = {"role": "assistant", "content": row["text"], "refusal": None}
        return {"index": number, "message": message, "finish_reason": row["finish"], "logprobs": None}

    def first(self, number: int) -> dict[str, Any]:
        """A choice that says whose text follows."""
        return self._piece(number, {"role": "assistant", "content": ""}, None)

    def text(self, number: int, text: str) -> dict[str, Any]:
        """A choice of a piece of its text."""
        return self._piece(number, {"content": text}, None)

    def last(self, number: int, finish: str) -> dict[str, Any]:
        """A choice without text, and why it ended."""
        return self._piece(number, {}, finish)

    def _piece(self, number: int, delta: dict[str, str], finish: str | None) -> dict[str, Any]:
        return {"index": number, "delta": delta, "finish_reason": finish, "logprobs": None}

    def object(self, piece: bool) -> str:
        """The name of the kind of object."""
        return "chat.completion.chunk" if piece else "chat.completion"


@router.post("/chat/completions", response_model=None)
async def chat(request: Request, caller: Submitter, broker: Connected, wanted: ChatRequest) -> Response:
    """Answer a conversation."""
    check_offered(wanted)
    if "audio" in (wanted.modalities or ()):
        raise NotOffered("modalities audio is not offered", "send text", "modalities")
    asked = Asked(request, broker, caller)
    spec = await asked.pipeline("chat", wanted.model, {"encode.format": "jsonl"})
    job = await asked.ask(spec, wanted.lines())
    style = ChatStyle(job.id, wanted.model or spec.name, wanted.n)
    if wanted.stream:
        return streamed(pieces(asked, job, style, wanted.n, wanted.with_usage))
    return await answered(asked, job, style)
