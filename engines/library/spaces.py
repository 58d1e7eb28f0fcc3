"""What a library holds: its results, and the vectors of each model."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engines.part import Array


@dataclass(slots=True)
class Stored:
    """A result file as it was read: when it was changed and its size; its rows `[first, first + count)` of `space`.

    `space` is the identity of its model; "" for a file that is no result of embeddings.
    """

    stamp: tuple[int, int]
    space: str = ""
    first: int = 0
    count: int = 0


@dataclass(slots=True)
class Space:
    """The vectors of one model, `vectors [rows, width]` float32 of unit length, which lie in `file`.

    `names`: the media by their numbers. `media` and `times` of each row: the number of its media, and its seconds from
    the first frame, NaN for images. `live`: the rows that count, sorted by media; `starts [M + 1]`: where those of each
    media begin in `live`.
    """

    model: str
    file: str
    width: int
    names: list[str] = field(default_factory=list)
    media: Array = field(default_factory=lambda: np.empty(0, np.int32))
    times: Array = field(default_factory=lambda: np.empty(0, np.float64))
    vectors: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    live: Array = field(default_factory=lambda: np.empty(0, np.int64))
    starts: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return len(self.media)

    @property
    def is_live(self) -> Array:
        """Whether each row counts, `[rows]` bool."""
        mask: Array = np.zeros(self.rows, np.bool_)
        mask[self.live] = True
        return mask


@dataclass(slots=True)
class Table:
    """All results of a library, by their paths in it, and the vectors of each model, by its identity."""

    folder: Path
    files: dict[str, Stored] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)

    def map(self) -> None:
        """Map the vectors of all models, before another process can delete a file."""
        for space in self.spaces.values():
            space.vectors = np.memmap(self.folder / space.file, np.float32, "r", shape=(space.rows, space.width))
