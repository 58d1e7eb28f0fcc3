"""The table of keys and values on a GPU: the shapes of a run follow from the length of a text alone.

Sums of floats are taken in another order for another shape. So the answer to a text does not depend on the texts beside
it, where each token is added to a block of rows of one size, and texts are read in runs of a size that follows from
their length. Rows that a run has too many are of no text. Runs that add tokens are alike, so they are recorded once and
replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.generation.answer_request import Tokens
from engines.generation.rows import Scores
from engines.inference.decoder_graph import IDS, MASK, POSITIONS, DecoderGraph
from engines.inference.key_value_table import DTYPES, KeyValueTable, padded
from engines.inference.place import Place
from engines.inference.resident import value
from engines.inference.token_scores import DeviceScores, ScoreGraphs
from engines.part import Array

REPLAYS = True
_BLOCK = 32  # rows that get a token in a run: with more, products with weights of int4 take longer
_PIECE = 1024  # most tokens of a text that a run reads
_READ_ROWS = 16  # most texts that a run reads
_LEAST = 64  # tokens of a text, with padding


@dataclass(slots=True, eq=False)
class _Block:
    """Rows that get a token in one run: its binding, and its values, which keep their places."""

    number: int
    binding: Any
    ids: Any
    mask: Any
    positions: Any
    logits: Any
    known: Array  # [rows] tokens of each row after the last run
    shown: Array  # [rows, context] the mask of that run


class GpuTable(KeyValueTable):
    """`rows` texts on a GPU; the memory is that of some more."""

    piece = _PIECE
    steps_all = True

    def __init__(self, graph: DecoderGraph, place: Place, rows: int, context: int) -> None:
        self.together = min(_BLOCK, rows)
        self._most_read = min(_READ_ROWS, max(1, rows // 2))
        blocks = -(-rows // self.together)
        super().__init__(graph, place, max(blocks * self.together, rows + self._most_read - 1), context, REPLAYS)
        self._scores = ScoreGraphs(place, graph.logits_element)
        self._last = place.zeros((self.together, 1), np.int64)
        self._blocks: dict[int, _Block] = {}

    def fits(self, lengths: Sequence[int]) -> bool:
        """See `engines.generation.rows.Table`."""
        sizes = {self._padded(each) for each in lengths}
        return len(sizes) == 1 and len(lengths) <= self._read_rows(sizes.pop())

    def read(self, first: int, texts: Sequence[Tokens], before: int = 0) -> Scores:
        """See `engines.generation.rows.Table`."""
        size = len(texts[0]) if before else self._padded(max(map(len, texts)))
        rows = 1 if before else self._read_rows(size)
        lengths = np.ones(rows, np.int64)
        lengths[: len(texts)] = [len(text) for text in texts]
        last = self._place.held(lengths[:, None] - 1)  # before the run, whose memory a later copy might take
        positions = before + np.arange(size)[None].repeat(rows, 0)
        binding = self._bound(first, rows)
        logits = self._run(binding, padded(texts, rows, size), before + lengths, before + size, positions)
        return DeviceScores(self._scores, binding, logits, last)

    def write(self, first: int, tokens: Sequence[int], known: Sequence[int]) -> Scores:
        """See `engines.generation.rows.Table`; `first` is that of a block."""
        block = self._blocks.get(first) or self._new_block(first)
        ids, after = np.zeros((self.together, 1), np.int64), np.ones(self.together, np.int64)
        ids[: len(tokens), 0] = tokens
        after[: len(tokens)] = known
        after[: len(tokens)] += 1
        grown = np.flatnonzero(after == block.known + 1)
        block.shown[grown, after[grown] - 1] = 1
        for row in np.flatnonzero((after != block.known + 1) & (after != block.known)):
            block.shown[row] = np.arange(self._context) < after[row]
        block.known = after
        self._give(block, IDS, block.ids, ids)
        self._give(block, MASK, block.mask, block.shown)
        if block.positions is not None:
            self._give(block, POSITIONS, block.positions, after[:, None] - 1)
        self._place.go(self._session, block.binding, block.number)
        return DeviceScores(self._scores, block.binding, block.logits, self._last)

    def _give(self, block: _Block, name: str, kept: Any, array: Array) -> None:
        """Give a run an input: in its place on the GPU, or on the host where a copy is bound."""
        if name in self._copied_when_bound:
            block.binding.bind_ortvalue_input(name, value(array.copy()))
        else:
            self._place.update(kept, array)

    def _new_block(self, first: int) -> _Block:
        rows, place = self.together, self._place
        shape = (rows, 1, self._graph.vocabulary)
        logits = place.zeros(shape, DTYPES[self._graph.logits_element])
        ids, mask = place.zeros((rows, 1), np.int64), place.zeros((rows, self._context), np.int64)
        positions = place.zeros((rows, 1), np.int64) if self._graph.has_positions else None
        binding = self._bound(first, rows, logits)
        for name, each in ((IDS, ids), (MASK, mask), (POSITIONS, positions)):
            if each is not None:
                binding.bind_ortvalue_input(name, each)
        known, shown = np.zeros(rows, np.int64), np.zeros((rows, self._context), np.int64)
        block = _Block(first // rows, binding, ids, mask, positions, logits, known, shown)
        self._blocks[first] = block
        return block

    def move(self, source: int, target: int, known: int) -> None:
        """See `engines.generation.rows.Table`."""
        size = len(self._graph.past), self._row_bytes
        self._place.copy(self._address(0, source), self._address(0, target), size, self._tensor_bytes)

    def close(self) -> None:
        """Free the memory."""
        self._blocks.clear()
        if self._session is not None:
            self._scores.close()
        super().close()

    def _padded(self, length: int) -> int:
        """Tokens of a text with padding: a power of two."""
        return min(self._context, max(_LEAST, 1 << (length - 1).bit_length()))

    def _read_rows(self, size: int) -> int:
        """Texts of that size, with padding, that a run reads."""
        return min(self._most_read, max(1, _PIECE // size))
