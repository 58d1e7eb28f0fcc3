"""Adds tokens to answers, which end by them."""

import time

from engines.generation.answering import Asked
from schemas.errors import MediaError


class TokenWriter:
    """`ends` are the tokens that end an answer."""

    def __init__(self, ends: frozenset[int]) -> None:
        self._ends = ends

    def add(self, asked: Asked, token: int) -> None:
        """Add a token to an answer, which may end by it."""
        answer = asked.answer
        if not answer.first_s:
            answer.first_s = time.monotonic()
        if token in self._ends:
            if asked.request.grammar and not answer.tokens:  # an empty text is not JSON
                hint = "correct the schema: it may refer to itself without an end"
                answer.fail(MediaError("no text matches its json_schema", hint))
            answer.end("stop")
        elif not answer.add(token) and answer.tokens >= asked.request.max_tokens:
            answer.end("length")
