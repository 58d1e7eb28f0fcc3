"""Language models by ONNX Runtime GenAI: many answers at a time, which begin and end independently.

Answers of the most probable tokens share a batch of GenAI's `Engine`, which requests join and leave at any token. Those
that are drawn each have a `Generator`, because an engine with a static batch takes no seeds, and so have those to long
questions, which an engine reads in one step. The tokens of an answer do not depend on other answers.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.generation.answer import Answer, Finish
from engines.generation.answer_request import AnswerRequest, Sampling, Tokens
from engines.inference.genai_folder import Limits, laid_out, limits_of, overlay_of
from engines.inference.genai_library import EVENTS, LIBRARY_ERRORS, batches_rightly, in_a_line, library
from engines.part import Array, Tick
from schemas.errors import ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec

_MOST_AT_ONCE, _PIECE = 256, 128  # tokens of a question: a longer one is read in pieces, so that steps are short
_BULK_SHARE = 8  # of so many answers at a time, one place is kept for those that a person waits for


class GenAiSession:
    """One model on the CPU, by one thread, or on the GPU of number `gpu`. `begin` an answer, then `step`."""

    batch_bytes = 1

    def __init__(self, model: ModelFiles, card: ModelSpec, kv_bytes: int, gpu: int | None = None) -> None:
        self.spec = card
        self.limits: Limits = limits_of(model, card, kv_bytes)
        self._og = library()
        self._folder = TemporaryDirectory(prefix="rigflow-genai-", ignore_cleanup_errors=True)
        try:
            config = self._og.Config(str(laid_out(model, Path(self._folder.name))))
            config.overlay(json.dumps(overlay_of(self.limits)))
            config.clear_providers()
            if gpu is not None:
                config.append_provider("cuda")
                config.set_provider_option("cuda", "device_id", str(gpu))
            self._model = self._og.Model(config)
            self._tokenizer = self._og.Tokenizer(self._model)
        except LIBRARY_ERRORS as error:
            self._folder.cleanup()
            raise ModelError(f"model {card.name} cannot be loaded: {in_a_line(error)}", "download it again") from error
        self._batches = True
        self._engine: Any = None  # it works for the thread alone that makes it, which is not the one that loads
        self._events: Any = None
        self._ends = frozenset(int(token) for token in self._tokenizer.eos_token_ids)
        self._waiting: list[tuple[AnswerRequest, Answer]] = []
        self._running: list[_Running] = []

    @property
    def places(self) -> int:
        """How many answers run at a time."""
        return self.limits.slots

    @property
    def room(self) -> int:
        """How many more answers can be begun without waiting for others to end."""
        return max(0, self.limits.slots - len(self._running) - len(self._waiting))

    @property
    def busy(self) -> bool:
        """Whether there are answers that are not done."""
        return bool(self._waiting or self._running)

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text."""
        return np.asarray(self._tokenizer.encode(text), np.int32)

    def chat_text(self, messages: Sequence[dict[str, str]]) -> str:
        """Return a conversation as text by the model's own template. Raises PipelineError if it has none."""
        try:
            given = json.dumps(list(messages))
            return str(self._tokenizer.apply_chat_template(given, add_generation_prompt=True))
        except LIBRARY_ERRORS as error:
            what = f"model {self.spec.name} cannot put the messages into its chat template: {in_a_line(error)}"
            raise PipelineError(what, "take a model for chat, or the pipeline `complete`") from error

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer: it grows by `step`, once there is room; urgent ones have room first."""
        stream = self._tokenizer.create_stream()
        answer = Answer(piece=lambda token: str(stream.decode(token)), stop=asked.stop, asked_s=time.monotonic())
        answer.cancel = lambda: self._cancel(answer)
        place = sum(other.urgent for other, _ in self._waiting) if asked.urgent else len(self._waiting)
        self._waiting.insert(place, (asked, answer))
        return answer

    def step(self, tick: Tick) -> None:
        """Add a token to every running answer."""
        self._fill()
        for running in [each for each in self._running if each.advance is not None]:
            assert running.advance is not None
            self._guarded(running.answer, running.advance)
            tick()
        if any(running.request is not None for running in self._running):
            self._step_engine()
            tick()
        self._running = [running for running in self._running if not running.ended()]

    def run(self, inputs: Any) -> dict[str, Array]:
        """Raise ModelError: its answers are made by the operators chat and complete."""
        raise ModelError(f"model {self.spec.name} writes text", "run it in a stage `chat` or `complete`")

    def warm_up(self) -> None:
        """Write some answers, alone and together: if these differ, none are written together. Raises ModelError."""
        try:
            self._batches = batches_rightly(self._og, self._model, self._tokenizer)
        except LIBRARY_ERRORS as error:
            raise ModelError(f"model {self.spec.name} failed: {in_a_line(error)}", "download it again") from error

    def close(self) -> None:
        """Free the memory."""
        self._waiting.clear()
        self._running.clear()
        self._events = self._engine = self._tokenizer = self._model = None
        self._folder.cleanup()

    def _fill(self) -> None:
        """Let the next waiting answer run: one in a step, because a step reads all of its question.

        Answers that no person waits for leave one place in eight free, at least one.
        """
        slots = self.limits.slots
        of_bulk = slots - max(1, slots // _BULK_SHARE) if slots > 1 else 1
        for asked, answer in list(self._waiting):
            bulk = sum(not running.urgent for running in self._running)
            if len(self._running) >= slots or (not asked.urgent and bulk >= of_bulk):
                continue
            self._waiting.remove((asked, answer))
            self._guarded(answer, partial(self._start, asked, answer))
            return

    def _start(self, asked: AnswerRequest, answer: Answer) -> None:
        if asked.sampling is None and self._batches and len(asked.tokens) <= _MOST_AT_ONCE:
            self._running.append(self._requested(asked, answer))
        else:
            self._running.append(_Running(answer, asked.urgent, advance=self._generated(asked, answer)))

    def _requested(self, asked: AnswerRequest, answer: Answer) -> "_Running":
        if self._engine is None:
            self._engine = self._og.Engine(self._model)
            self._events = self._engine.create_event_buffer(EVENTS)
        request = self._engine.create_request()
        options = self._og.TurnOptions(request)
        options.set_max_generated_tokens(asked.max_tokens)
        options.set_do_sample(False)
        if asked.grammar:
            options.set_guidance("json_schema", asked.grammar)
        return _Running(answer, asked.urgent, request=request, turn=request.begin_turn(asked.tokens, options))

    def _generated(self, asked: AnswerRequest, answer: Answer) -> Callable[[], None]:
        params = self._og.GeneratorParams(self._model)
        params.set_search_options(max_length=len(asked.tokens) + asked.max_tokens, **_search_options(asked.sampling))
        if asked.grammar:
            params.set_guidance("json_schema", asked.grammar)
        generator = self._og.Generator(self._model, params)
        pieces = iter(np.split(asked.tokens, range(_PIECE, len(asked.tokens), _PIECE)))

        def advance() -> None:
            piece = next(pieces, None)
            if piece is not None:
                generator.append_tokens(piece)
                return
            generator.generate_next_token()
            self._add(answer, int(generator.get_next_tokens()[0]))
            if generator.is_done():
                answer.end("length")

        return advance

    def _step_engine(self) -> None:
        by_request = {id(running.request): running for running in self._running if running.request is not None}
        flags = self._og.EngineEventFlags
        try:
            events = [
                (id(event.request), event.flags, event.token, event.finish_reason)
                for event in self._engine.run(self._events)
            ]
        except LIBRARY_ERRORS as error:
            for running in by_request.values():
                running.answer.fail(self._failure(error))
            return
        for request, flag, token, reason in events:
            if request not in by_request:
                continue
            running = by_request[request]
            if flag & flags.TOKEN and not running.answer.done and self._add(running.answer, int(token)):
                running.request.cancel_turn(running.turn)
            if flag & flags.FAILED:
                running.answer.fail(ModelError(f"model {self.spec.name} failed", "see the worker's log"))
            elif flag & flags.TURN_FINISHED:
                running.answer.end(self._finish(reason))

    def _finish(self, reason: Any) -> Finish:
        reasons = self._og.FinishReason
        return "length" if reason in (reasons.MAX_GENERATED_TOKENS, reasons.MAX_SESSION_TOKENS) else "stop"

    def _add(self, answer: Answer, token: int) -> bool:
        if not answer.first_s:
            answer.first_s = time.monotonic()
        if token in self._ends:
            answer.end("stop")
            return True
        return answer.add(token)

    def _cancel(self, answer: Answer) -> None:
        answer.end("cancelled")
        self._waiting = [each for each in self._waiting if each[1] is not answer]
        for running in self._running:
            if running.answer is answer and running.request is not None:
                running.request.cancel_turn(running.turn)
        self._running = [running for running in self._running if not running.ended()]

    def _guarded(self, answer: Answer, work: Callable[[], None]) -> None:
        try:
            work()
        except LIBRARY_ERRORS as error:
            answer.fail(self._failure(error))

    def _failure(self, error: Exception) -> RigflowError:
        return ModelError(f"model {self.spec.name} failed: {in_a_line(error)}", "correct the request")


class _Running:
    """An answer that has a place: by a request to the engine, or by a generator of its own."""

    def __init__(
        self,
        answer: Answer,
        urgent: bool,
        request: Any = None,
        turn: int = 0,
        advance: Callable[[], None] | None = None,
    ) -> None:
        self.answer = answer
        self.urgent = urgent
        self.request = request
        self.turn = turn
        self.advance = advance

    def ended(self) -> bool:
        """Whether it is done; then its memory is given back."""
        if not self.answer.done:
            return False
        if self.request is not None:
            self.request.close()
            self.request = None
        self.advance = None
        return True


def _search_options(sampling: Sampling | None) -> dict[str, Any]:
    if sampling is None:
        return {"do_sample": False}
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return {"do_sample": True, "random_seed": sampling.seed, **options}
