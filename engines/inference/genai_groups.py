"""An answer that a generator of ONNX Runtime GenAI writes for itself."""

from typing import Any

import numpy as np

from engines.generation.answer_request import Sampling
from engines.generation.answering import Asked
from engines.generation.token_writer import TokenWriter
from engines.inference.genai_library import LIBRARY_ERRORS, in_a_line
from schemas.errors import ModelError, RigflowError


class GeneratorGroup:
    """One answer: it may fulfil a schema, and its tokens may be drawn. `name` is the model's. Raises RigflowError.

    The question is read in pieces of so many tokens, so that steps are short.
    """

    def __init__(self, og: Any, model: Any, asked: Asked, writer: TokenWriter, piece: int, name: str) -> None:
        self._asked = asked
        self._writer = writer
        self._name = name
        request = asked.request
        try:
            params = og.GeneratorParams(model)
            most = len(request.tokens) + request.max_tokens
            params.set_search_options(max_length=most, **_search_options(request.sampling))
            if request.grammar:
                params.set_guidance("json_schema", request.grammar)
            self._generator: Any = og.Generator(model, params)
        except LIBRARY_ERRORS as error:
            raise self._failure(error) from error
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
            raise self._failure(error) from error
        self._writer.add(self._asked, token)
        if done:
            self._asked.answer.end("length")

    def drop(self, asked: Asked) -> None:
        """Do nothing: `close` follows."""

    def close(self) -> None:
        """Free the generator."""
        self._generator = None

    def _failure(self, error: Exception) -> RigflowError:
        return ModelError(f"model {self._name} failed: {in_a_line(error)}", "correct the request")


def _search_options(sampling: Sampling | None) -> dict[str, Any]:
    if sampling is None:
        return {"do_sample": False}
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return {"do_sample": True, "random_seed": sampling.seed, **options}
