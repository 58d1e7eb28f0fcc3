"""The keys and values of texts that a language model continues: a table of rows, one a text, on a device.

A run takes rows that follow each other. It reads texts into them, or adds a token to each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.generation.answer_request import Tokens
from engines.generation.rows import Scores
from engines.inference.decoder_graph import IDS, LOGITS, MASK, POSITIONS, DecoderGraph
from engines.inference.place import Place
from engines.inference.resident import value
from engines.inference.token_scores import HostScores
from engines.part import Array
from schemas.errors import ModelError

DTYPES = {1: np.float32, 10: np.float16, 16: np.uint16}  # TensorProto.DataType; NumPy has no bfloat16
_PIECE = 64  # most tokens of a text that a run on the CPU reads: it takes as long as a token for each row
_TOGETHER = 64  # tokens of several texts in such a run, with padding; more take as long a token
_MOST_BINDINGS = 64


class KeyValueTable:
    """`rows` texts of at most `context` tokens each. Methods raise ModelError, DeviceLost."""

    def __init__(self, graph: DecoderGraph, place: Place, rows: int, context: int, replays: bool = False) -> None:
        self._graph, self._place, self._context = graph, place, context
        self._session = place.load(graph.content, replays)
        self._copied_when_bound = place.copied_when_bound(self._session)
        if apart := self._copied_when_bound.intersection(graph.past):
            what = f"its graph reads `{min(apart)}` on the host: it cannot be computed on this GPU"
            raise ModelError(what, "have workers of the CPU compute it")
        self._row_bytes = graph.heads * context * graph.width * graph.element_bytes
        self._tensor_bytes = rows * self._row_bytes
        shape = (len(graph.past), rows, graph.heads, context, graph.width)
        self._values = place.zeros(shape, DTYPES[graph.element])

    def close(self) -> None:
        """Free the memory."""
        session, self._session, self._values = self._session, None, None
        if session is not None:
            self._place.close(session)

    def stop(self) -> None:
        """See `engines.generation.rows.Table`."""
        self._place.stop()

    def _bound(self, first: int, rows: int, logits: Any = None) -> Any:
        """A binding of the keys and values of some rows, and of logits as its first output, a given value or a new
        one.
        """
        binding = self._session.io_binding()
        if logits is None:
            binding.bind_output(LOGITS, *self._place.device)
        else:
            binding.bind_ortvalue_output(LOGITS, logits)
        for number, (past, present) in enumerate(zip(self._graph.past, self._graph.present, strict=True)):
            binding.bind_input(past, *self._slice(number, first, rows))
            binding.bind_output(present, *self._slice(number, first, rows))
        return binding

    def _slice(self, number: int, first: int, rows: int) -> tuple[str, int, Any, tuple[int, ...], int]:
        """Some rows of a tensor of keys or values, as bindings take them."""
        graph = self._graph
        shape = (rows, graph.heads, self._context, graph.width)
        return *self._place.device, graph.element, shape, self._address(number, first)

    def _address(self, number: int, row: int) -> int:
        return int(self._values.data_ptr()) + number * self._tensor_bytes + row * self._row_bytes

    def _run(self, binding: Any, ids: Array, known: Array, most: int, positions: Array) -> Any:
        """Logits `[N, T, V]` of `ids [N, T]`; with them rows have `known [N]` tokens, none more than `most`."""
        binding.bind_ortvalue_input(IDS, value(ids))
        binding.bind_ortvalue_input(MASK, value((np.arange(most) < known[:, None]).astype(np.int64)))
        if self._graph.has_positions:
            binding.bind_ortvalue_input(POSITIONS, value(positions.astype(np.int64)))
        self._place.go(self._session, binding)
        return binding.get_outputs()[0]


class HostTable(KeyValueTable):
    """On the CPU: a run takes as many rows and tokens as are needed."""

    piece = _PIECE
    steps_all = False

    def __init__(self, graph: DecoderGraph, place: Place, rows: int, context: int) -> None:
        super().__init__(graph, place, rows, context)
        self.together = rows
        self._bindings: dict[tuple[int, int], Any] = {}

    def fits(self, lengths: Sequence[int]) -> bool:
        """See `engines.generation.rows.Table`."""
        return len(lengths) * max(lengths) <= min(_TOGETHER, 2 * sum(lengths))

    def read(self, first: int, texts: Sequence[Tokens], before: int = 0) -> Scores:
        """See `engines.generation.rows.Table`."""
        lengths = np.array([len(text) for text in texts])
        ids = padded(texts, len(texts), int(lengths.max()))
        positions = before + np.arange(ids.shape[1])[None].repeat(len(texts), 0)
        binding = self._bound(first, len(texts))
        logits = self._run(binding, ids, before + lengths, before + ids.shape[1], positions)
        return HostScores(logits.numpy(), lengths - 1)

    def write(self, first: int, tokens: Sequence[int], known: Sequence[int]) -> Scores:
        """See `engines.generation.rows.Table`."""
        ids, after = np.array(tokens, np.int64)[:, None], np.array(known, np.int64) + 1
        key = (first, len(tokens))
        if key not in self._bindings:
            if len(self._bindings) >= _MOST_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            self._bindings[key] = self._bound(*key)
        logits = self._run(self._bindings[key], ids, after, int(after.max()), after[:, None] - 1)
        return HostScores(logits.numpy(), np.zeros(len(tokens), np.int64))

    def move(self, source: int, target: int, known: int) -> None:
        """See `engines.generation.rows.Table`."""
        values = self._values.numpy()
        values[:, target, :, :known] = values[:, source, :, :known]

    def close(self) -> None:
        """Free the memory."""
        self._bindings.clear()
        super().close()


def padded(texts: Sequence[Tokens], rows: int, size: int) -> Array:
    """Return texts as `[rows, size] int64`, with zeros behind the shorter ones and in further rows."""
    ids = np.zeros((rows, size), np.int64)
    for row, text in zip(ids, texts, strict=False):
        row[: len(text)] = text
    return ids
