"""Tokens that end an answer."""

import numpy as np
import pytest

from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest
from engines.generation.answering import Asked
from engines.generation.token_writer import TokenWriter


@pytest.mark.parametrize(
    ("grammar", "tokens", "text", "end"),
    [
        ("", [9], "", "stop"),
        ("", [1, 2, 9], "12", "stop"),
        ("", [1, 2, 3], "123", "length"),
        ("{}", [1, 9], "1", "stop"),
        ("{}", [9], "", "no text matches its json_schema: correct the schema: it may refer to itself without an end"),
    ],
)
def test_an_answer_ends_by_a_token_or_at_its_length(grammar: str, tokens: list[int], text: str, end: str) -> None:
    asked = Asked(AnswerRequest(np.zeros(1, np.int32), 3, grammar=grammar), Answer(piece=str))
    for token in tokens:
        assert not asked.answer.done
        TokenWriter(frozenset({9})).add(asked, token)
    answer = asked.answer
    assert (answer.text, str(answer.error or answer.finish)) == (text, end)
