"""The keys and values of texts that a language model continues: a table of rows, one a text, on a device.

A run takes rows that follow each other. It reads texts into them, or adds a token to each. On a GPU the shapes of a run
follow from the length of a text alone, so that its answer does not depend on the texts beside it: sums of floats are
taken in another order for another shape. Rows that a run has too many are of no text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.generation.answer_request import Tokens
from engines.generation.rows import Scores
from engines.inference.decoder_graph import IDS, LOGITS, MASK, POSITIONS, DecoderGraph
from engines.inference.resident import Place, value
from engines.inference.token_graphs import rows_graph
from engines.inference.token_scores import DeviceScores, HostScores, ScoreGraphs
from engines.part import Array

_PIECE, _PIECE_ON_GPU = 128, 1024  # most tokens of a text that a run reads
_TOGETHER = 160  # tokens, with padding, of several texts in a run on the CPU
_READ_ROWS = 8  # most texts that a run reads on a GPU
_LEAST = 64  # tokens of a text on a GPU, with padding
_MOST_BINDINGS = 64
_DTYPES = {1: np.float32, 10: np.float16, 16: np.uint16}  # TensorProto.DataType; NumPy has no bfloat16


class KeyValueTable:
    """`rows` texts of at most `context` tokens each. Methods raise ModelError, DeviceLost."""

    def __init__(self, graph: DecoderGraph, place: Place, rows: int, context: int) -> None:
        self._graph, self._place = graph, place
        self._session = place.load(graph.content)
        self._context = context
        self._row_bytes = graph.heads * context * graph.width * graph.element_bytes
        self.read_rows = min(_READ_ROWS, max(1, rows // 4)) if place.on_gpu else rows
        self.rows, self._spare = rows, self.read_rows - 1 if place.on_gpu else 0
        shape = (rows + self._spare, graph.heads, context, graph.width)
        self._values = [place.zeros(shape, _DTYPES[graph.element]) for _ in graph.past]
        self._bindings: dict[tuple[int, int], Any] = {}
        self._scores = ScoreGraphs(place, graph.logits_element) if place.on_gpu else None
        copied = [str(number) for number in range(len(graph.past))]
        self._copy = place.load(rows_graph(copied, graph.element)) if place.on_gpu else None
        self._first_row = place.zeros((1,), np.int64)

    @property
    def piece(self) -> int:
        """Most tokens of a text that a run reads."""
        return _PIECE_ON_GPU if self._place.on_gpu else _PIECE

    @property
    def steps_all(self) -> bool:
        """Whether a token for all texts takes no longer than one for a few."""
        return self._place.on_gpu

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether a run can read texts of these lengths, the first of which it reads in any case."""
        if self._place.on_gpu:
            padded = {self._padded(each) for each in lengths}
            return len(padded) == 1 and len(lengths) <= self._read_rows(padded.pop())
        return len(lengths) * max(lengths) <= min(_TOGETHER, 2 * sum(lengths))

    def read(self, first: int, texts: Sequence[Tokens], before: int = 0) -> Scores:
        """Read texts into the rows from `first` on; `before`: a single one goes on where its row has so many tokens."""
        lengths = np.array([len(text) for text in texts])
        size, rows = int(lengths.max()), len(texts)
        if self._place.on_gpu and not before:
            size = self._padded(size)
            rows = self._read_rows(size)
        ids, known = np.zeros((rows, size), np.int64), np.ones(rows, np.int64)
        known[: len(texts)] = before + lengths
        for row, text in zip(ids, texts, strict=False):
            row[: len(text)] = text
        positions = before + np.arange(size)[None].repeat(rows, 0)
        binding = self._bound(first, rows)
        logits = self._run(binding, ids, known, before + size, positions)
        last = np.zeros(rows, np.int64)
        last[: len(texts)] = lengths - 1
        return self._scored(binding, logits, last)

    def write(self, first: int, tokens: Sequence[int], known: Sequence[int]) -> Scores:
        """Add a token to each of the rows from `first` on, which have so many. On a GPU `first` is 0."""
        rows = self.rows if self._place.on_gpu else len(tokens)
        ids, after = np.zeros((rows, 1), np.int64), np.ones(rows, np.int64)
        ids[: len(tokens), 0] = tokens
        after[: len(tokens)] = known
        after[: len(tokens)] += 1
        most = self._context if self._place.on_gpu else int(after.max())
        key = (first, rows)
        if key not in self._bindings:
            if len(self._bindings) >= _MOST_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            self._bindings[key] = self._bound(first, rows)
        binding = self._bindings[key]
        logits = self._run(binding, ids, after, most, after[:, None] - 1)
        return self._scored(binding, logits, np.zeros(rows, np.int64))

    def move(self, source: int, target: int, known: int) -> None:
        """Copy a row of so many tokens over another one."""
        if self._copy is None:
            for each in self._values:
                rows = each.numpy()
                rows[target, :, :known] = rows[source, :, :known]
            return
        binding = self._copy.io_binding()
        binding.bind_ortvalue_input("rows", self._first_row)
        for number, each in enumerate(self._values):
            binding.bind_input(str(number), *self._slice(each, source, 1))
            binding.bind_output(f"taken.{number}", *self._slice(each, target, 1))
        self._place.go(self._copy, binding)

    def close(self) -> None:
        """Free the memory."""
        for session in (self._session, self._copy):
            if session is not None:
                self._place.close(session)
        if self._scores is not None:
            self._scores.close()
        self._bindings.clear()
        self._values.clear()
        self._session = self._copy = self._scores = None

    def _run(self, binding: Any, ids: Array, known: Array, most: int, positions: Array) -> Any:
        """Logits `[N, T, V]` of `ids [N, T]`; with them rows have `known [N]` tokens, none more than `most`."""
        binding.bind_ortvalue_input(IDS, value(ids))
        binding.bind_ortvalue_input(MASK, value((np.arange(most) < known[:, None]).astype(np.int64)))
        if self._graph.has_positions:
            binding.bind_ortvalue_input(POSITIONS, value(positions.astype(np.int64)))
        self._place.go(self._session, binding)
        return binding.get_outputs()[0]

    def _bound(self, first: int, rows: int) -> Any:
        """A binding of the keys and values of some rows, and of logits as its first output."""
        binding = self._session.io_binding()
        binding.bind_output(LOGITS, *self._place.device)
        for past, present, each in zip(self._graph.past, self._graph.present, self._values, strict=True):
            binding.bind_input(past, *self._slice(each, first, rows))
            binding.bind_output(present, *self._slice(each, first, rows))
        return binding

    def _slice(self, each: Any, first: int, rows: int) -> tuple[str, int, Any, tuple[int, ...], int]:
        """Some rows of a value, as bindings take them."""
        graph = self._graph
        shape = (rows, graph.heads, self._context, graph.width)
        return *self._place.device, graph.element, shape, each.data_ptr() + first * self._row_bytes

    def _scored(self, binding: Any, logits: Any, last: Array) -> Scores:
        if self._scores is None:
            return HostScores(logits.numpy(), last)
        return DeviceScores(self._scores, binding, logits, last)

    def _padded(self, length: int) -> int:
        """Tokens of a text on a GPU with padding: a power of two."""
        return min(self._context, max(_LEAST, 1 << (length - 1).bit_length()))

    def _read_rows(self, size: int) -> int:
        """Texts of that size, with padding, that a run reads on a GPU."""
        return min(self.read_rows, max(1, _PIECE_ON_GPU // size))
