"""Groups of answers that ONNX Runtime GenAI writes: a batch of its `Engine`, or a `Generator` for one answer.

An engine has a group to itself. Its batch is static: a request that comes later waits until all of the batch have
ended, even if there is room. Both are used by the thread alone that makes them.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.generation.answer import Finish
from engines.generation.answer_request import Sampling
from engines.generation.answering import Asked
from engines.inference.genai_library import EVENTS, LIBRARY_ERRORS, in_a_line
from schemas.errors import ModelError, RigflowError

_PIECE = 128  # tokens of a question that is read in pieces, so that steps are short


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
        else:
            answer.add(token)

    def failure(self, error: Exception) -> RigflowError:
        """Return an error of the library as ours."""
        return ModelError(f"model {self._name} failed: {in_a_line(error)}", "correct the request")


class EngineGroup:
    """Answers of the most probable tokens, in a batch of an engine. Raises RigflowError."""

    def __init__(self, og: Any, model: Any, asked: Sequence[Asked], writer: TokenWriter) -> None:
        self._og = og
        self._writer = writer
        self._requests: dict[int, tuple[Asked, Any, int]] = {}
        try:
            self._engine = og.Engine(model)
            self._events = self._engine.create_event_buffer(EVENTS)
        except LIBRARY_ERRORS as error:
            raise writer.failure(error) from error
        for each in asked:
            self._begin(each)

    def _begin(self, asked: Asked) -> None:
        """Begin an answer; one whose schema the library refuses fails alone."""
        request = self._engine.create_request()
        try:
            options = self._og.TurnOptions(request)
            options.set_max_generated_tokens(asked.request.max_tokens)
            options.set_do_sample(False)
            if asked.request.grammar:
                options.set_guidance("json_schema", asked.request.grammar)
            turn = request.begin_turn(asked.request.tokens, options)
        except LIBRARY_ERRORS as error:
            request.close()
            asked.answer.fail(self._writer.failure(error))
            return
        self._requests[id(request)] = asked, request, turn

    def step(self) -> None:
        """Let the engine write a token of each answer."""
        if not self._requests:
            return
        flags = self._og.EngineEventFlags
        try:
            events = [
                (id(event.request), event.flags, event.token, event.finish_reason)
                for event in self._engine.run(self._events)
            ]
        except LIBRARY_ERRORS as error:
            raise self._writer.failure(error) from error
        for request, flag, token, reason in events:
            if request not in self._requests:
                continue
            asked = self._requests[request][0]
            if flag & flags.TOKEN and not asked.answer.done:
                self._writer.add(asked, int(token))
            if flag & flags.FAILED:
                asked.answer.fail(self._writer.failure(RuntimeError("its engine says no more")))
            elif flag & flags.TURN_FINISHED:
                asked.answer.end(self._finish(reason))
                self._requests.pop(request)[1].close()

    def _finish(self, reason: Any) -> Finish:
        reasons = self._og.FinishReason
        return "length" if reason in (reasons.MAX_GENERATED_TOKENS, reasons.MAX_SESSION_TOKENS) else "stop"

    def drop(self, asked: Asked) -> None:
        """Cancel the request of an answer."""
        for number, (member, request, turn) in list(self._requests.items()):
            if member is asked:
                request.cancel_turn(turn)
                request.close()
                del self._requests[number]

    def close(self) -> None:
        """Free the engine and its keys and values."""
        for _, request, _ in self._requests.values():
            request.close()
        self._requests.clear()
        self._events = self._engine = None


class GeneratorGroup:
    """One answer, by a generator: its question may be long, and its tokens may be drawn. Raises RigflowError."""

    def __init__(self, og: Any, model: Any, asked: Asked, writer: TokenWriter) -> None:
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
        self._pieces = iter(np.split(request.tokens, range(_PIECE, len(request.tokens), _PIECE)))

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
