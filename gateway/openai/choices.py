"""How an answer of a language model is chosen, in OpenAI's fields -> a line of JSON for the fleet."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue

from gateway.openai.fields import OpenAIRequest, Unused, not_offered
from schemas.errors import UsageError

MOST_CHOICES = 16


class StreamOptions(BaseModel):
    """What a stream has besides text."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: Unused = None


class ResponseFormat(BaseModel):
    """The form of an answer; `json_schema` has the schema in a field of that name."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, JsonValue] | None = None

    @property
    def grammar(self) -> JsonValue:
        """The JSON schema that an answer fulfils; None for any text. Raises UsageError where it is missing."""
        if self.type != "json_schema":
            return {"type": "object"} if self.type == "json_object" else None
        if self.json_schema is None:
            raise UsageError("response_format has the type json_schema and no json_schema", "send the schema")
        return self.json_schema.get("schema", {})


class AnswerFields(OpenAIRequest):
    """The fields that chat and completions share."""

    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    temperature: FiniteFloat | None = Field(default=None, ge=0, le=2)
    top_p: FiniteFloat | None = Field(default=None, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = Field(default=None)
    seed: int | None = Field(default=None)
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: JsonValue = not_offered()
    frequency_penalty: JsonValue = not_offered()
    logit_bias: JsonValue = not_offered()
    logprobs: JsonValue = not_offered()

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def line(self, number: int) -> dict[str, Any]:
        """The fields of the line of JSON for one choice; several choices differ by their seed."""
        seed = None if self.seed is None else (self.seed + number) % (1 << 31)
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        given = {
            "id": str(number),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": stop or None,
            "seed": seed,
        }
        return {name: value for name, value in given.items() if value is not None}
