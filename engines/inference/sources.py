"""What a model's inputs read: an array of a part, or the picture that decode made for them, seen row by row."""

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from engines.inference.session import RowSelection
from engines.part import Array, Part, holds_frames
from engines.planned import model_picture_name, model_sound_name
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.pipeline import OperatorStage


class Sight(Enum):
    """How a model sees an array of a part."""

    WINDOWS = "windows"  # `array[index]`, `[W, T, ...]`
    SINGLES = "singles"  # the one frame of each window, `[W, ...]`
    ROWS = "rows"  # as it is


def sight_of(name: str, ndim: int, rank: int, frames: int) -> Sight:
    """How a model input of `rank` dimensions sees the array `name` of `ndim`, in windows of `frames` (0: no index)."""
    if frames and holds_frames(name):
        if rank == ndim + 1:
            return Sight.WINDOWS
        if rank == ndim and frames == 1:
            return Sight.SINGLES
    return Sight.ROWS


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of one input of one part; gathered batch by batch, so that windows never exist all at once."""

    array: Array
    index: Array | None = None  # which rows of `array` make row i; None: row i itself

    def chosen(self, start: int, stop: int) -> RowSelection:
        """Rows `[start, stop)`, not gathered yet."""
        if self.index is None:
            return RowSelection(self.array, None, start, stop)
        rows = self.index[start:stop]
        return RowSelection(self.array, rows, int(rows.min(initial=0)), int(rows.max(initial=-1)) + 1)

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (*(() if self.index is None else self.index.shape[1:]), *self.array.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row) * self.array.itemsize

    def __len__(self) -> int:
        return len(self.array if self.index is None else self.index)


def source_name(stage: OperatorStage, name: str, held: Container[str]) -> str:
    """The array that the model's input `name` reads, of those that a part has."""
    made = (model_picture_name(stage.name, name), model_sound_name(stage.name, name))
    return stage.reads.get(name) or next((array for array in made if array in held), name)


def source_of(stage: OperatorStage, part: Part, name: str, rank: int, shape_only: bool = False) -> Source:
    """What the input `name` of `rank` dimensions of a stage's model reads of a part. Raises ModelError.

    `shape_only`: no rows will be taken of it.
    """
    wanted = source_name(stage, name, part.arrays)
    array = part.arrays.get(wanted)
    if array is None or isinstance(array, Ragged):
        state = "wants" if array is None else "cannot read the rows of different lengths of"
        raise ModelError(f"stage `{stage.name}` {state} array `{wanted}` for input `{name}`", holds(part))
    index = part.arrays.get("index")
    if index is not None and not isinstance(index, Ragged):
        sight = sight_of(wanted, array.ndim, rank, index.shape[1])
        if sight is Sight.WINDOWS:
            return Source(array, index)
        if sight is Sight.SINGLES and (shape_only or not _is_identity(index, len(array))):
            return Source(array, index[:, 0])
    return Source(array)


def _is_identity(index: Array, rows: int) -> bool:
    return len(index) == rows and bool((index[:, 0] == np.arange(rows)).all())


def holds(part: Part) -> str:
    """What a part has, in words."""
    return f"it has {', '.join(sorted(part.arrays)) or 'no arrays'}"
