"""Language models in folders of ONNX Runtime GenAI: many answers at a time, which begin and end independently.

The graph of a model is computed by ONNX Runtime, for rows of as many answers as there are (`KeyValueTable`). GenAI
itself has the tokenizer, and writes the answers that fulfil a schema, each by a generator of its own, and all answers
of graphs that cannot be computed over rows. The tokens of an answer do not depend on other answers.
"""

import numpy as np

from engines.content import ModelFiles
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest, Tokens
from engines.generation.answering import Answering, Asked, Group
from engines.generation.row_answering import RowAnswering
from engines.generation.token_writer import TokenWriter
from engines.inference.decoder_graph import decoder_graph
from engines.inference.genai_folder import limits_of
from engines.inference.genai_groups import GeneratorGroup
from engines.inference.genai_library import LIBRARY_ERRORS, GenAiModel, in_a_line
from engines.inference.gpu_table import GpuTable
from engines.inference.key_value_table import HostTable
from engines.inference.place import Place
from engines.inference.text_session import TextSession
from schemas.errors import ModelError
from schemas.model import ModelSpec

_RECORDED = 4  # as many runs that are alike ONNX Runtime wants until it replays them
_PIECE = 128  # tokens of a question that a generator reads in a step


class GenAiSession(TextSession):
    """One model on a device. `begin` an answer, then `step`."""

    def __init__(self, model: ModelFiles, card: ModelSpec, kv_bytes: int, place: Place) -> None:
        limits = limits_of(model, card, kv_bytes, place.on_gpu)
        super().__init__(model, card, limits)
        self._library = GenAiModel(model, limits, place.device[1] if place.on_gpu else None, card.name)
        self._table: HostTable | GpuTable | None = None
        ends = frozenset(int(token) for token in self._library.tokenizer.eos_token_ids)
        self._writer = TokenWriter(ends)
        try:
            graph = decoder_graph(model, card)
            if graph is not None:
                kind = GpuTable if place.on_gpu else HostTable
                self._table = kind(graph, place, limits.slots, limits.context)
            self._answering = self._answers(self._table)
        except Exception:
            self._library.close()
            raise

    def _answers(self, table: HostTable | GpuTable | None) -> Answering | RowAnswering:
        if table is None:
            return Answering(self.limits, lambda group: self._alone(group[0]), lambda asked: None)
        return RowAnswering(self.limits, table, self._writer, self._alone, lambda asked: bool(asked.grammar))

    def encode(self, text: str, templated: bool) -> Tokens:
        """Return the tokens of a text. The library's tokenizer adds none."""
        return np.asarray(self._library.tokenizer.encode(text), np.int32)

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer: it grows by `step`, once there is room; urgent ones have room first."""
        stream = self._library.tokenizer.create_stream()
        answer = Answer(piece=lambda token: str(stream.decode(token)), stop=asked.stop)
        return self._added(asked, answer)

    def warm_up(self) -> None:
        """Write a token. Raises ModelError, DeviceLost."""
        if self._table is not None:
            self._table.read(0, [np.zeros(2, np.int32)]).best()
            for _ in range(_RECORDED):
                self._table.write(0, [0], [2]).best()
            return
        try:
            params = self._library.og.GeneratorParams(self._library.loaded)
            generator = self._library.og.Generator(self._library.loaded, params)
            generator.append_tokens(np.zeros(1, np.int32))
            generator.generate_next_token()
        except LIBRARY_ERRORS as error:
            raise ModelError(f"model {self.spec.name} failed: {in_a_line(error)}", "download it again") from error

    def close(self) -> None:
        """Free the memory."""
        self._answering.clear()
        if self._table is not None:
            self._table.close()
        self._library.close()

    def _alone(self, asked: Asked) -> Group:
        return GeneratorGroup(self._library.og, self._library.loaded, asked, self._writer, _PIECE, self.spec.name)
