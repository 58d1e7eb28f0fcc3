"""The work of a model on one part: its rows, and what is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.heads.view import View
from engines.inference.items import Items
from engines.inference.sources import Source
from engines.inference.tiles import Tiles
from engines.part import Array, Part, Value
from engines.ragged import Ragged
from schemas.errors import ModelError


@dataclass(slots=True)
class Work:
    """One pass of the model over one part: all of it, or one array of `each`, which its output `replaces`."""

    part: int
    inputs: Mapping[str, Source | Tiles | Items]
    rows: int
    replaces: str = ""
    views: Sequence[View] = ()
    alike: View | None = None  # the view that all rows of its batches have, where that matters
    taken: int = 0  # rows that batches have taken, in order
    made: dict[str, Value] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[object, ...]:
        """Only work of equal signature shares a batch."""
        rows = tuple((name, source.array.dtype, source.row) for name, source in sorted(self.inputs.items()))
        return *rows, self.alike

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all inputs."""
        return sum(source.row_bytes for source in self.inputs.values())

    @property
    def tiled(self) -> bool:
        """Whether its rows are tiles of pictures."""
        return any(isinstance(source, Tiles) for source in self.inputs.values())

    @property
    def held(self) -> int:
        """How many rows are not computed, because they equal others."""
        return sum(source.held for source in self.inputs.values() if isinstance(source, Tiles))

    def put(self, start: int, outputs: Mapping[str, Value]) -> None:
        """Take the answers of the rows from `start` on."""
        tiles = next((source for source in self.inputs.values() if isinstance(source, Tiles)), None)
        if tiles is not None and self.rows:
            tiles.put(start, outputs)
            self.made = {**tiles.made}
            return
        for output, value in outputs.items():
            name = self.replaces or output
            known = self.made.get(name)
            if known is None and (len(value) == self.rows or not isinstance(value, np.ndarray)):
                self.made[name] = value
            elif isinstance(value, Ragged):
                assert isinstance(known, Ragged), "a head gives the same kind of array for each batch"
                self.made[name] = Ragged.joined([known, value])
            else:
                self._put_array(name, start, output, value)

    def _put_array(self, name: str, start: int, output: str, array: Array) -> None:
        known = self.made.get(name)
        if known is None:
            self.made[name] = known = np.empty((self.rows, *array.shape[1:]), array.dtype)
        assert not isinstance(known, Ragged)
        if known.shape[1:] != array.shape[1:]:
            shapes = f"{list(known.shape[1:])} and {list(array.shape[1:])}"
            raise ModelError(f"output `{output}` changes its shape between batches: {shapes}", "give it one shape")
        if len(known) == self.rows:
            known[start : start + len(array)] = array
        else:  # on a GPU, where rows are joined without a copy
            self.made[name] = np.concatenate([known, array])


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `[start, stop)` of a work, as a batch takes them."""

    work: Work
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Begun(Part):
    """A part with rows that wait for a fuller batch: `entire` as it came, and its works, some of them answered."""

    entire: Part
    works: tuple[Work, ...]
