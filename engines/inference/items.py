"""The items of a ragged array as rows of a model: crops of faces, of lines of text.

All items of many parts are rows of the same batches, however many a window has, and the answers are ragged again, with
as many values a window. Where an array `NAME_width [M]` int32 stands beside the items `NAME [M, H, W, ...]`, an item is
its first columns only, and those of equal width share batches: their width, and so the answer, does not depend on what
else is batched.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from engines.heads.view import View
from engines.inference.session import RowSelection
from engines.part import Array, Part, Value
from engines.ragged import Ragged
from schemas.errors import ModelError


@dataclass(frozen=True, eq=False, slots=True)
class Items:
    """Items of equal width of one part, as the rows that a model takes; see `engines.inference.sources.Source`.

    `places [R]`: which of all items of the part they are.
    """

    all: Ragged
    places: Array
    width: int | None = None  # None: all columns

    @property
    def array(self) -> Array:
        """The items, in all their columns."""
        return self.all.values

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row."""
        shape = self.array.shape[1:]
        return shape if self.width is None else (shape[0], self.width, *shape[2:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row) * self.array.itemsize

    @property
    def views(self) -> Sequence[View]:
        """A view for each row: it is its own source."""
        if len(self.row) < 2:
            return ()
        size = self.row[0], self.row[1]
        return [View(size, size, size)] * len(self)

    def __len__(self) -> int:
        return len(self.places)

    def chosen(self, start: int, stop: int) -> RowSelection:
        """Rows `[start, stop)`."""
        if self.width is None:
            return RowSelection(self.array, None, start, stop)
        cut = np.ascontiguousarray(self.array[self.places[start:stop], :, : self.width])
        return RowSelection(cut, None, 0, len(cut))


def items_of(part: Part, name: str, stage: str) -> Iterator[Items]:
    """Yield the items of an array by width, ascending; if there are none, one without rows. Raises ModelError."""
    found, widths = part.arrays.get(name), part.arrays.get(width_name(name))
    if not isinstance(found, Ragged):
        raise ModelError(f"stage `{stage}` wants `{name}`, items of each window", f"it has {', '.join(part.arrays)}")
    if widths is None:
        yield Items(found, np.arange(len(found.values)))
        return
    if not isinstance(widths, Ragged) or widths.values.shape != (len(found.values),) or found.values.ndim < 3:
        raise ModelError(f"stage `{stage}`: `{width_name(name)}` has no width for each item of `{name}`")
    most = found.values.shape[2]
    if not ((widths.values > 0) & (widths.values <= most)).all():
        raise ModelError(f"stage `{stage}`: a width in `{width_name(name)}` is not from 1 to {most}")
    for width in np.unique(widths.values).tolist() or [most]:
        yield Items(found, np.flatnonzero(widths.values == width), int(width))


def width_name(name: str) -> str:
    """Return the name of the array with the widths of the items `name`."""
    return f"{name}_width"


def put_together(made: Sequence[tuple[Items, Mapping[str, Value]]]) -> dict[str, Value]:
    """Return the answers for all items of a part, ragged as the items. Raises ModelError for one of another shape."""
    offsets, answers = made[0][0].all.offsets, dict[str, Array]()
    for items, arrays in made:
        for name, value in arrays.items():
            if isinstance(value, Ragged):
                raise ModelError(f"output `{name}` has rows of different lengths for the items of a window")
            array = np.asarray(value)
            known = answers.setdefault(name, np.empty((int(offsets[-1]), *array.shape[1:]), array.dtype))
            if known.shape[1:] != array.shape[1:]:
                shapes = f"{list(known.shape[1:])} and {list(array.shape[1:])}"
                raise ModelError(f"output `{name}` changes its shape with the width of items: {shapes}")
            known[items.places] = array
    return {name: Ragged(values, offsets) for name, values in answers.items()}
