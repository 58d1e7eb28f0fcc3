"""Language models by CTranslate2: many answers at a time, of the most probable tokens.

With weights of int8 on the CPU, questions of one length are answered together: its sums are exact, so that an answer is
the same in any such group. Questions of other lengths would be padded, and with floats the number of rows chooses the
order of sums: such answers are written alone.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.extras import imported
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest, Tokens
from engines.generation.answering import Answering, Asked, Group
from engines.generation.chat_template import chat_text, template_of, texts_of
from engines.inference.ct2_files import MODEL_FILE, read_binary, token_bytes
from engines.inference.ct2_groups import CallGroup, failure
from engines.inference.genai_folder import Limits, context_of, slots_of
from engines.inference.reasons import one_line
from engines.inference.tokenizer_file import tokenizer_of
from engines.part import Array, Tick
from engines.speech.network import MAIN_FILE, file_named
from schemas.errors import ModelError, PipelineError
from schemas.model import ModelSpec

_EXACT = ("int8", "int8_float32")  # precisions whose sums do not depend on the number of rows, on the CPU
_TRIED_TOKENS = 4


class CTranslate2TextSession:
    """One model on the CPU, by one thread, or on the GPU of number `gpu`. `begin` an answer, then `step`."""

    batch_bytes = 1

    def __init__(self, model: ModelFiles, card: ModelSpec, kv_bytes: int, gpu: int | None = None) -> None:
        self.spec = card
        weights = model.folder / file_named(card.files, MODEL_FILE, card.name).sha256
        slot_bytes = token_bytes(read_binary(weights), card.name) * context_of(card)
        self.limits = Limits(context_of(card), slots_of(card.name, slot_bytes, kv_bytes), slot_bytes)
        self._library = imported("ctranslate2", f"model {card.name}", "llm-ct2")
        self._library.set_log_level(40)  # errors come as exceptions
        self._tokenizers = imported("tokenizers", f"model {card.name}", "llm-ct2")
        self._tokenizer: Any = tokenizer_of(model, card, "llm-ct2")
        self._template = template_of(texts_of(model), card.name)
        self._ends = self._ends_of(model)
        self._together = gpu is None and card.precision in _EXACT
        self._generator: Any = self._opened(model, gpu)
        self._answering = Answering(self.limits.slots, self._start, self._kind)

    @property
    def context(self) -> int:
        """Tokens that a text and its answer may have together."""
        return self.limits.context

    @property
    def places(self) -> int:
        """How many answers run at a time."""
        return self.limits.slots

    @property
    def room(self) -> int:
        """How many more answers can be begun without waiting for others to end."""
        return self._answering.room

    @property
    def busy(self) -> bool:
        """Whether there are answers that are not done."""
        return self._answering.busy

    def encode(self, text: str, templated: bool) -> Tokens:
        """Return the tokens of a text; where no template did it, with those that the tokenizer puts before a text."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=not templated).ids, np.int32)

    def chat_text(self, messages: Sequence[dict[str, str]]) -> str:
        """Return a conversation as text by the model's own template. Raises PipelineError if it has none."""
        return chat_text(self._template, messages, self.spec.name)

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer. Raises PipelineError: CTranslate2 takes no seed for one answer, and no schema."""
        if asked.sampling is not None or asked.grammar:
            what = "a temperature" if asked.sampling is not None else "a schema"
            hint = "leave it out, or add the model as a folder of ONNX Runtime GenAI"
            raise PipelineError(f"model {self.spec.name} writes the most probable tokens alone, without {what}", hint)
        stream = self._tokenizers.decoders.DecodeStream(skip_special_tokens=True)
        answer = Answer(piece=lambda token: stream.step(self._tokenizer, token) or "", stop=asked.stop)
        self._answering.add(asked, answer)
        return answer

    def step(self, tick: Tick) -> None:
        """Add a token to every running answer, or to those alone that a person waits for."""
        self._answering.step(tick)

    def run(self, inputs: Any) -> dict[str, Array]:
        """Raise ModelError: its answers are made by the operators chat and complete."""
        raise ModelError(f"model {self.spec.name} writes text", "run it in a stage `chat` or `complete`")

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
        return len(asked.tokens) if self._together else None

    def _start(self, asked: Sequence[Asked]) -> Group:
        words = [list(map(self._tokenizer.id_to_token, each.request.tokens.tolist())) for each in asked]
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

    def _opened(self, model: ModelFiles, gpu: int | None) -> Any:
        device = "cpu" if gpu is None else "cuda"
        known = self._library.get_supported_compute_types(device, *(() if gpu is None else (gpu,)))
        if self.spec.precision not in known:
            what = f"model {self.spec.name}: this {'CPU' if gpu is None else 'GPU'} does not compute in "
            hint = f"add it again with --set precision=..., one of {', '.join(sorted(known))}"
            raise ModelError(what + self.spec.precision, hint)
        with tempfile.TemporaryDirectory(prefix="rigflow-") as folder:
            (Path(folder) / MAIN_FILE).write_bytes(model.graph)
            for file in model.files:
                if file.name == MODEL_FILE or file.name.startswith("vocabulary."):
                    (Path(folder) / file.name).symlink_to(model.folder.resolve() / file.sha256)
            try:
                return self._library.Generator(
                    folder,
                    device=device,
                    device_index=gpu or 0,
                    compute_type=self.spec.precision,
                    intra_threads=1,
                    inter_threads=self.limits.slots + 1,  # a group that is closed may be ending its step
                )
            except Exception as error:
                what = f"model {self.spec.name} cannot be loaded: {one_line(error)}"
                raise ModelError(what, "add it again") from error
