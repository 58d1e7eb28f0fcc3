"""Arrays whose rows have different lengths: the boxes of a frame, the words of a window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Ragged:
    """Row i is `values[offsets[i] : offsets[i + 1]]`.

    `values [M, ...]` of any dtype; `offsets [N + 1]` int64, rising from 0 to M.
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[npt.NDArray[Any]], empty: npt.NDArray[Any] | None = None) -> Self:
        """Join rows of equal dtypes and inner shapes. Where there may be none, `empty` is a row without values."""
        given = rows if empty is None else [empty, *rows]
        return cls(np.concatenate(given), np.cumsum([0, *map(len, rows)], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> Self:
        """Join the rows of several ragged arrays; there is at least one."""
        counts = np.concatenate([np.diff(each.offsets) for each in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return cls(np.concatenate([each.values for each in parts]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> npt.NDArray[Any]:
        """Return the values of one row, a view."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def rows(self, start: int, stop: int) -> "Ragged":
        """Return the rows `[start, stop)`, views."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, numbers: Sequence[int]) -> "Ragged":
        """Return the rows of these numbers, copied."""
        return Ragged.of([self.row(number) for number in numbers], self.values[:0])

    @property
    def nbytes(self) -> int:
        """Number of bytes of values and offsets."""
        return self.values.nbytes + self.offsets.nbytes
