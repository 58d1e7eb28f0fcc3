"""The scores (logits) of the next token of texts, on the host or on a GPU: the best token, or all scores of a few."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.inference.place import Place
from engines.inference.resident import value
from engines.inference.token_graphs import CHOSEN, LAST, LOGITS, SOME_SCORES, likeliest_graph, scores_graph
from engines.part import Array


class HostScores:
    """Of logits `[N, T, V]` and the places `[N]` of the last tokens."""

    def __init__(self, logits: Array, last: Array) -> None:
        self._logits, self._last = logits, last

    def best(self) -> Sequence[int]:
        """See `engines.generation.rows.Scores`."""
        return [int(row[place].argmax()) for row, place in zip(self._logits, self._last, strict=True)]

    def of(self, rows: Sequence[int]) -> Array:
        """See `engines.generation.rows.Scores`."""
        return np.stack([self._logits[row, self._last[row]] for row in rows]).astype(np.float32)


class ScoreGraphs:
    """Graphs that choose tokens on a GPU."""

    def __init__(self, place: Place, element: int) -> None:
        self.place = place
        self.likeliest = place.load(likeliest_graph(element))
        self.scores = place.load(scores_graph(element))

    def close(self) -> None:
        """Free them."""
        self.place.close(self.likeliest)
        self.place.close(self.scores)


class DeviceScores:
    """Of logits on a GPU: see `HostScores`. `binding` is that of the run that makes them and may not have ended: the
    memory of its inputs must not be used for others before.
    """

    def __init__(self, graphs: ScoreGraphs, binding: Any, logits: Any, last: Any) -> None:
        """`last [N, 1] int64` is a value on the GPU: while the run goes on, nothing may be copied there."""
        self._graphs = graphs
        self._binding = binding
        self._inputs = {LOGITS: logits, LAST: last}
        self._best: list[int] | None = None

    def best(self) -> Sequence[int]:
        """See `engines.generation.rows.Scores`."""
        if self._best is None:
            [chosen] = self._graphs.place.fetch(self._graphs.likeliest, self._inputs, [CHOSEN])
            self._best = chosen[:, 0].tolist()
        return self._best

    def of(self, rows: Sequence[int]) -> Array:
        """See `engines.generation.rows.Scores`."""
        self.best()  # now the run has ended
        inputs = {**self._inputs, "some": value(np.array(rows, np.int64))}
        return self._graphs.place.fetch(self._graphs.scores, inputs, [SOME_SCORES])[0]
