"""Fields of OpenAI's requests: those that have no effect here, and those that are not offered and are refused."""

from typing import Any, TypeAlias

from fastapi import Form
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from gateway.openai.errors import NotOffered
from schemas.errors import UsageError

MARK = "x-offered"  # in the description of a field: false
_EXTRA: dict[str, JsonValue] = {MARK: False}
_MISSING = "is not offered: a request with it is refused"
_NEUTRAL: tuple[JsonValue, ...] = (None, False, 0, "", "auto", "none", [], {})

Unused: TypeAlias = JsonValue
"""The type of a field that is for OpenAI's own service, and has no effect."""


def not_offered() -> Any:
    """The default of a field that is not offered."""
    return Field(default=None, description=_MISSING, json_schema_extra=_EXTRA)


def not_offered_form(alias: str | None = None) -> Any:
    """The same of a form."""
    return Form(alias=alias, description=_MISSING, json_schema_extra=_EXTRA)


def _or_null(schema: dict[str, Any]) -> None:
    """Have the description of a request say so: a field that may be left out may be null."""
    for name, field in schema["properties"].items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


class OpenAIRequest(BaseModel):
    """What all requests have. A field that OpenAI does not have is refused, and one that it has is known.

    A field that is null is left out: clients send those that nobody set.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_or_null)
    model: str = Field(default="", max_length=200)
    user: Unused = None
    safety_identifier: Unused = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name not in cls.model_fields}


def check_offered(wanted: OpenAIRequest) -> None:
    """Raise NotOffered when a request uses a field that is not offered; its default says nothing else."""
    for name, field in type(wanted).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get(MARK) is False:
            check_neutral(name, getattr(wanted, name))


def texts_of(field: str, given: Any, most: int) -> list[Any]:
    """The entries of a field that has one or several. Raises UsageError for numbers of tokens, none, or too many."""
    entries = given if isinstance(given, list) else [given]
    if any(isinstance(each, int | list) for each in entries):
        hint = "send text: numbers of tokens are of OpenAI's tokenizer, which the fleet's models do not have"
        raise UsageError(f"{field} has numbers of tokens", hint)
    if not 1 <= len(entries) <= most:
        raise UsageError(f"{field} has {len(entries)} entries", f"send 1 to {most}")
    return entries


def check_neutral(name: str, value: JsonValue) -> None:
    """Raise NotOffered if a field that is not offered has a value that asks for something."""
    if not any(value is each or value == each for each in _NEUTRAL):
        raise NotOffered(f"{name} is not offered", "leave it out", name)
