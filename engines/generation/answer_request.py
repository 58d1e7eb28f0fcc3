"""The request for one answer of a language model: its tokens, how they are chosen, and where the answer ends."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, Strict, ValidationError

from engines.seeds import seed_of_item
from schemas.errors import MediaError, format_field_error
from schemas.jobs import Key
from schemas.requests import TextRequest

Tokens = npt.NDArray[np.int32]
_SEEDS = 1 << 31


class Choices(BaseModel):
    """How an answer is chosen: by a stage, or by a line for itself. None: not given.

    `max_tokens` of an answer; without it there are 512, or as many as the context has room for. A `temperature` of 0
    takes the most probable token each time. `json_schema`: a JSON schema that the answer fulfils.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    max_tokens: Annotated[int, Strict(), Field(ge=1, le=1 << 20)] | None = None
    temperature: Annotated[FiniteFloat, Strict(), Field(ge=0, le=100)] | None = None
    top_p: Annotated[FiniteFloat, Strict(), Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Strict(), Field(ge=0, le=1 << 20)] | None = None
    seed: Annotated[int, Strict(), Field(ge=0, lt=_SEEDS)] | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=16)] | None = None
    json_schema: dict[str, JsonValue] | None = None

    def over(self, other: "Choices") -> "Choices":
        """Return these choices, and those of `other` for what these leave out."""
        given = {name: value for name, value in dict(self).items() if value is not None}
        return other.model_copy(update=given)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; `top_k` 0: of all. The same seed draws the same tokens."""

    temperature: float
    top_p: float
    top_k: int
    seed: int


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One answer that is wanted. `sampling` None: the most probable token each time; `grammar`: a JSON schema, or "".

    `urgent`: a person waits for it.
    """

    tokens: Tokens
    max_tokens: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    grammar: str = ""
    urgent: bool = False


def line_choices(request: TextRequest | None) -> Choices:
    """Return what a line chooses for itself. Raises MediaError."""
    extra: dict[str, Any] = {} if request is None else dict(request.model_extra or {})
    if isinstance(extra.get("stop"), str):
        extra["stop"] = (extra["stop"],)
    try:
        return Choices.model_validate(extra)
    except ValidationError as error:
        raise MediaError(format_field_error(error.errors()[0]), "see docs/chat.md") from error


def sampling_of(choices: Choices, own_seed: bool, key: Key, number: int) -> Sampling | None:
    """Return how the tokens of an item are drawn; None for the most probable ones.

    The seed follows from the job, the place of the item in it and the stage's seed, so that it does not depend on the
    fleet. With `own_seed`, a line has the seed itself.
    """
    if not choices.temperature:
        return None
    seed = choices.seed or 0
    if not own_seed:
        seed = seed_of_item(key, number, seed) % _SEEDS
    return Sampling(choices.temperature, 1.0 if choices.top_p is None else choices.top_p, choices.top_k or 0, seed)


def grammar_of(choices: Choices) -> str:
    """Return the JSON schema as text; "" if there is none."""
    return "" if choices.json_schema is None else json.dumps(choices.json_schema)
