"""Language models by CTranslate2: many answers at a time.

With weights of int8 on the CPU, questions of one length are answered together: its sums are exact, so that an answer is
the same in any such group. Questions of other lengths would be padded, and with floats the number of rows chooses the
order of sums: such answers are written alone, and so are those whose tokens are drawn.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.extras import imported
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest, Tokens
from engines.generation.answering import Answering, Asked, Group
from engines.inference.ct2_drawn import DrawnGroup
from engines.inference.ct2_files import MODEL_FILE, read_binary, token_bytes
from engines.inference.ct2_groups import CallGroup, failure
from engines.inference.ct2_library import library, opened
from engines.inference.genai_folder import limits_by
from engines.inference.text_session import TextSession
from engines.inference.tokenizer_file import tokenizer_of
from engines.speech.network import MAIN_FILE, file_named
from schemas.errors import ModelError, PipelineError
from schemas.model import ModelSpec

_EXACT = ("int8", "int8_float32")  # precisions whose sums do not depend on the number of rows, on the CPU
_TRIED_TOKENS = 4


class CTranslate2TextSession(TextSession):
    """One model on the CPU, by one thread, or on the GPU of number `gpu`. `begin` an answer, then `step`."""

    def __init__(self, model: ModelFiles, card: ModelSpec, kv_bytes: int, gpu: int | None = None) -> None:
        weights = model.folder / file_named(card.files, MODEL_FILE, card.name).sha256
        limits = limits_by(card, token_bytes(read_binary(weights), card.name), kv_bytes, gpu is not None)
        ct2 = library(card, "llm-ct2")
        self._tokenizers = imported("tokenizers", f"model {card.name}", "llm-ct2")
        self._tokenizer: Any = tokenizer_of(model, card, "llm-ct2")
        super().__init__(model, card, limits)
        self._answering = Answering(limits, self._start, self._kind)
        self._ends = self._ends_of(model)
        count = self._tokenizer.get_vocab_size()
        self._vocabulary = [self._tokenizer.id_to_token(token) or "" for token in range(count)]
        self._together = gpu is None and card.precision in _EXACT
        calls = limits.slots + 1  # a group that is closed may be ending its step
        self._generator: Any = opened(ct2, ct2.Generator, model, card, gpu, calls)

    def encode(self, text: str, templated: bool) -> Tokens:
        """Return the tokens of a text; where no template did it, with those that the tokenizer puts before a text."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=not templated).ids, np.int32)

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer. Raises PipelineError: CTranslate2 takes no schema."""
        if asked.grammar:
            hint = "leave out json_schema, or add the model as a folder of ONNX Runtime GenAI"
            raise PipelineError(f"model {self.spec.name} writes no answers that fulfil a schema", hint)
        stream = self._tokenizers.decoders.DecodeStream(skip_special_tokens=True)
        answer = Answer(piece=lambda token: stream.step(self._tokenizer, token) or "", stop=asked.stop)
        return self._added(asked, answer)

    def warm_up(self) -> None:
        """Write some tokens. Raises ModelError, DeviceLost."""
        words = [self._tokenizer.id_to_token(0)]
        try:
            self._generator.generate_batch([words], max_length=_TRIED_TOKENS, end_token=self._ends)
        except Exception as error:  # the library raises RuntimeError and ValueError
            raise failure(error) from error

    def close(self) -> None:
        """Free the memory."""
        self._answering.clear()
        self._generator = self._tokenizer = None

    def _kind(self, asked: AnswerRequest) -> int | None:
        return len(asked.tokens) if self._together and asked.sampling is None else None

    def _start(self, asked: Sequence[Asked]) -> Group:
        words = [list(map(self._tokenizer.id_to_token, each.request.tokens.tolist())) for each in asked]
        if asked[0].request.sampling is not None:
            return DrawnGroup(self._generator, asked[0], words[0], self._vocabulary, self._ends)
        return CallGroup(self._generator, asked, words, self._ends)

    def _ends_of(self, model: ModelFiles) -> list[int]:
        """Return the tokens that end an answer. Raises ModelError if there are none."""
        names = {file.name: model.folder / file.sha256 for file in model.files}
        found: set[int] = set()
        try:
            token = json.loads(model.graph).get("eos_token")
            if "generation_config.json" in names:
                given = json.loads(names["generation_config.json"].read_bytes()).get("eos_token_id")
                found |= {each for each in (given if isinstance(given, list) else [given]) if type(each) is int}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise ModelError(f"model {self.spec.name}: its settings are damaged", "add it again") from error
        named = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        found |= set() if named is None else {named}
        size = self._tokenizer.get_vocab_size()
        if not found or not all(0 <= each < size for each in found):
            raise ModelError(
                f"model {self.spec.name}: {MAIN_FILE} names no token that ends an answer", "convert it again"
            )
        return sorted(found)
