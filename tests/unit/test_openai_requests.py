"""Requests of OpenAI as clients send them: a field that nobody set is null."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi import Request

from gateway.openai.chat import ChatRequest
from gateway.openai.completions import MOST_PROMPTS, CompletionRequest, CompletionStyle
from gateway.openai.embeddings import EmbeddingRequest
from gateway.openai.fields import OpenAIRequest
from gateway.openai.images import GenerationRequest
from gateway.openai.running import Asked
from gateway.openai.speech import SpeechRequest
from gateway.problems import HttpError
from schemas.errors import UsageError

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


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "prompt has 0 entries"),
        (["a"] * (MOST_PROMPTS + 1), f"prompt has {MOST_PROMPTS + 1} entries"),
        ([1, 2], "prompt has numbers of tokens"),
        ([[1], [2]], "prompt has numbers of tokens"),
    ],
)
def test_prompts_are_texts_of_a_number_that_is_bounded(prompt: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CompletionRequest(prompt=prompt, n=16).lines()


def test_the_lines_of_prompts_are_in_their_order() -> None:
    lines = CompletionRequest(prompt=["a", "b"], n=2, seed=7).lines()
    assert [(line["id"], line["prompt"], line["seed"]) for line in lines] == [
        ("0", "a", 7),
        ("1", "a", 8),
        ("2", "b", 7),
        ("3", "b", 8),
    ]


def test_each_question_is_counted_once_and_each_answer() -> None:
    rows = [{"prompt_tokens": asked, "tokens": told} for asked, told in ((3, 1), (3, 2), (5, 4), (5, 8))]
    usage = {"prompt_tokens": 8, "completion_tokens": 15, "total_tokens": 23}
    assert CompletionStyle("j", "m", 2).usage(rows) == usage


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "text", "json_schema": {"schema": {"type": "array"}}}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, {"type": "array"}),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, {}),
    ],
)
def test_the_form_of_an_answer_is_a_schema(form: Any, grammar: Any) -> None:
    request = ChatRequest.model_validate(LEAST[ChatRequest] | {"response_format": form})
    assert [line.get("json_schema") for line in request.lines()] == [grammar]


def test_a_schema_that_is_missing_is_no_leave_for_any_text() -> None:
    request = ChatRequest.model_validate(LEAST[ChatRequest] | {"response_format": {"type": "json_schema"}})
    with pytest.raises(UsageError, match="no json_schema"):
        request.lines()


def test_a_question_that_is_repeated_for_each_choice_is_limited() -> None:
    app = SimpleNamespace(state=SimpleNamespace(settings=SimpleNamespace(json_bytes=1024)))
    asked = Asked(Request({"type": "http", "app": app}), None, None)  # type: ignore[arg-type]
    lines = CompletionRequest(prompt="x" * 500, n=16).lines()
    with pytest.raises(HttpError, match="a question, once for each of its choices, has at most 4,096 bytes"):
        asyncio.run(asked.ask(None, lines))  # type: ignore[arg-type]
