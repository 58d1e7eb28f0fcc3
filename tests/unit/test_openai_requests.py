"""Requests of OpenAI as clients send them: a field that nobody set is null."""

import pytest

pytest.importorskip("fastapi")

from gateway.openai.chat import ChatRequest
from gateway.openai.completions import CompletionRequest
from gateway.openai.embeddings import EmbeddingRequest
from gateway.openai.fields import OpenAIRequest
from gateway.openai.images import GenerationRequest
from gateway.openai.speech import SpeechRequest

LEAST = {
    ChatRequest: {"messages": [{"role": "user", "content": "x"}]},
    CompletionRequest: {"prompt": "x"},
    EmbeddingRequest: {"input": "x"},
    GenerationRequest: {"prompt": "x"},
    SpeechRequest: {"input": "x"},
}


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_a_field_that_is_null_is_left_out(kind: type[OpenAIRequest]) -> None:
    nulls = dict.fromkeys(kind.model_fields)
    assert kind.model_validate(nulls | LEAST[kind]) == kind.model_validate(LEAST[kind])
    for name, field in kind.model_json_schema()["properties"].items():
        assert ({"type": "null"} in field.get("anyOf", ())) == (name not in LEAST[kind]), name


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_is_needed_or_not_known_is_refused_also_as_null(kind: type[OpenAIRequest]) -> None:
    for wrong in (dict.fromkeys(LEAST[kind]), LEAST[kind] | {"odd": None}):
        with pytest.raises(ValueError, match=r"required|not permitted"):
            kind.model_validate(wrong)
