"""Language models by ONNX Runtime GenAI: many answers at a time, which begin and end independently.

Answers of the most probable tokens are written in groups, each by one generator. Those that are drawn have a generator
for themselves, because it takes one seed, and so have those with a schema, and those to long questions, which are read
in pieces. The tokens of an answer do not depend on other answers.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest, Tokens
from engines.generation.answering import Asked, Group
from engines.inference.genai_folder import laid_out, limits_of, overlay_of
from engines.inference.genai_groups import BatchGroup, GeneratorGroup, TokenWriter
from engines.inference.genai_library import LIBRARY_ERRORS, batches_rightly, in_a_line, library
from engines.inference.text_session import TextSession
from engines.scratch import ScratchFolder
from schemas.errors import ModelError
from schemas.model import ModelSpec

_TOGETHER = 256  # tokens of a question on the CPU: a longer one is read in pieces, so that steps are short


class GenAiSession(TextSession):
    """One model on the CPU, by one thread, or on the GPU of number `gpu`. `begin` an answer, then `step`."""

    def __init__(self, model: ModelFiles, card: ModelSpec, kv_bytes: int, gpu: int | None = None) -> None:
        limits = limits_of(model, card, kv_bytes, gpu is not None)
        self._og = library()
        super().__init__(model, card, limits)
        self._folder = ScratchFolder("genai")
        try:
            self._load(model, gpu)
        except LIBRARY_ERRORS as error:
            self._folder.remove()
            raise ModelError(f"model {card.name} cannot be loaded: {in_a_line(error)}", "download it again") from error
        self._batches = True
        self._together = max(_TOGETHER, limits.read)
        ends = frozenset(int(token) for token in self._tokenizer.eos_token_ids)
        self._writer = TokenWriter(ends, card.name)

    def _load(self, model: ModelFiles, gpu: int | None) -> None:
        """Load the model from a folder, which the library reads again for answers that fulfil a schema."""
        config = self._og.Config(str(laid_out(model, self._folder.path)))
        config.overlay(json.dumps(overlay_of(self.limits)))
        config.clear_providers()
        if gpu is not None:
            config.append_provider("cuda")
            config.set_provider_option("cuda", "device_id", str(gpu))
        self._model: Any = self._og.Model(config)
        self._tokenizer: Any = self._og.Tokenizer(self._model)

    def encode(self, text: str, templated: bool) -> Tokens:
        """Return the tokens of a text. The library's tokenizer adds none."""
        return np.asarray(self._tokenizer.encode(text), np.int32)

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer: it grows by `step`, once there is room; urgent ones have room first."""
        stream = self._tokenizer.create_stream()
        answer = Answer(piece=lambda token: str(stream.decode(token)), stop=asked.stop)
        return self._added(asked, answer)

    def warm_up(self) -> None:
        """Write some answers, alone and together: if these differ, none are written together. Raises ModelError."""
        try:
            self._batches = batches_rightly(self._og, self._model, self._tokenizer)
        except LIBRARY_ERRORS as error:
            raise ModelError(f"model {self.spec.name} failed: {in_a_line(error)}", "download it again") from error

    def close(self) -> None:
        """Free the memory."""
        self._answering.clear()
        self._tokenizer = self._model = None
        self._folder.remove()

    def _kind(self, asked: AnswerRequest) -> int | None:
        alone = asked.sampling is not None or asked.grammar or len(asked.tokens) > self._together
        return 0 if self._batches and not alone else None

    def _start(self, asked: Sequence[Asked]) -> Group:
        if self._kind(asked[0].request) is None:
            return GeneratorGroup(self._og, self._model, asked[0], self._writer, self._together // 2)
        return BatchGroup(self._og, self._model, asked, self._writer, int(self._tokenizer.pad_token_id))
