"""Groups of answers that ONNX Runtime GenAI writes: a generator of several rows, or one for one answer."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.generation.answer_request import Sampling, Tokens
from engines.generation.answering import Asked
from engines.inference.genai_library import LIBRARY_ERRORS, in_a_line, padded
from schemas.errors import ModelError, RigflowError


class TokenWriter:
    """Adds tokens to answers; `ends` are those that end one. `name` is that of the model, for errors."""

    def __init__(self, ends: frozenset[int], name: str) -> None:
        self._ends = ends
        self._name = name

    def add(self, asked: Asked, token: int) -> None:
        """Add a token to an answer, which may end by it."""
        answer = asked.answer
        if not answer.first_s:
            answer.first_s = time.monotonic()
        if token in self._ends:
            answer.end("stop")
        elif not answer.add(token) and answer.tokens >= asked.request.max_tokens:
            answer.end("length")

    def failure(self, error: Exception) -> RigflowError:
        """Return an error of the library as ours."""
        return ModelError(f"model {self._name} failed: {in_a_line(error)}", "correct the request")


class BatchGroup:
    """Answers of the most probable tokens, by one generator: a row each. Raises RigflowError.

    A row whose answer is done is computed until all are. GenAI's own engine does the same with four rows at most.
    """

    def __init__(self, og: Any, model: Any, asked: Sequence[Asked], writer: TokenWriter, pad: int) -> None:
        self._asked: list[Asked | None] = list(asked)
        self._writer = writer
        self._questions: Tokens | None = padded([each.request.tokens for each in asked], pad)
        most = self._questions.shape[1] + max(each.request.max_tokens for each in asked)
        try:
            params = og.GeneratorParams(model)
            params.set_search_options(max_length=most, batch_size=len(asked), do_sample=False)
            self._generator: Any = og.Generator(model, params)
        except LIBRARY_ERRORS as error:
            raise writer.failure(error) from error

    def step(self) -> None:
        """Read the questions, at first, and write a token of each answer."""
        try:
            if self._questions is not None:
                self._generator.append_tokens(self._questions)
                self._questions = None
            self._generator.generate_next_token()
            tokens = self._generator.get_next_tokens().tolist()
        except LIBRARY_ERRORS as error:
            raise self._writer.failure(error) from error
        for asked, token in zip(self._asked, tokens, strict=True):
            if asked is not None and not asked.answer.done:
                self._writer.add(asked, token)

    def drop(self, asked: Asked) -> None:
        """Write no more tokens of an answer."""
        self._asked[self._asked.index(asked)] = None

    def close(self) -> None:
        """Free the generator, with its keys and values."""
        self._generator = None


class GeneratorGroup:
    """One answer, by a generator: its question may be long, and its tokens may be drawn. Raises RigflowError.

    The question is read in pieces of so many tokens, so that steps are short.
    """

    def __init__(self, og: Any, model: Any, asked: Asked, writer: TokenWriter, piece: int) -> None:
        self._asked = asked
        self._writer = writer
        request = asked.request
        try:
            params = og.GeneratorParams(model)
            most = len(request.tokens) + request.max_tokens
            params.set_search_options(max_length=most, **_search_options(request.sampling))
            if request.grammar:
                params.set_guidance("json_schema", request.grammar)
            self._generator: Any = og.Generator(model, params)
        except LIBRARY_ERRORS as error:
            raise writer.failure(error) from error
        self._pieces = iter(np.split(request.tokens, range(piece, len(request.tokens), piece)))

    def step(self) -> None:
        """Read a piece of the question, or write a token."""
        try:
            piece = next(self._pieces, None)
            if piece is not None:
                self._generator.append_tokens(piece)
                return
            self._generator.generate_next_token()
            token, done = int(self._generator.get_next_tokens()[0]), self._generator.is_done()
        except LIBRARY_ERRORS as error:
            raise self._writer.failure(error) from error
        self._writer.add(self._asked, token)
        if done:
            self._asked.answer.end("length")

    def drop(self, asked: Asked) -> None:
        """Do nothing: `close` follows."""

    def close(self) -> None:
        """Free the generator."""
        self._generator = None


def _search_options(sampling: Sampling | None) -> dict[str, Any]:
    if sampling is None:
        return {"do_sample": False}
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return {"do_sample": True, "random_seed": sampling.seed, **options}
