"""How many texts one request to continue texts may have."""

import pytest

pytest.importorskip("fastapi")

from pydantic import ValidationError

from gateway.openai.completions import MOST_PROMPTS, CompletionRequest


@pytest.mark.parametrize("number", [0, MOST_PROMPTS + 1])
def test_a_list_of_texts_has_some_and_not_too_many(number: int) -> None:
    with pytest.raises(ValidationError, match=f"1 to {MOST_PROMPTS} texts, not {number}"):
        CompletionRequest(prompt=["one"] * number)


def test_each_text_is_a_line_for_each_choice() -> None:
    wanted = CompletionRequest(prompt=["one", "two"], n=2, seed=5)
    lines = [(line["prompt"], line["seed"]) for line in wanted.lines()]
    assert lines == [("one", 5), ("one", 6), ("two", 5), ("two", 6)]
