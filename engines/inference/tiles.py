"""Cuts pictures into tiles of one size for a model, and puts the answers together. Nothing is blended.

A tile has a core, whose answer is used, and around it context of `overlap` source pixels. At the edges of the picture
there is no context: a tile there begins or ends with the picture, and the last one is moved inwards, so that each lies
wholly in the picture. Where `overlap` is at least the radius that the network sees, the answer is that of the whole
picture; with less, pixels near seams differ, and the geometry, which is in the model's card, decides by how much.

A picture that is smaller than a tile is padded right and below, and the answer is cropped: within the network's radius
of those two sides it is the answer for the padded picture.

A tile that equals the one at its place in the frame before is computed once: animation holds its drawings for two or
three frames, and backgrounds for longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np

from engines.heads.view import Size, View
from engines.inference.session import RowSelection
from engines.inference.sources import Source
from engines.part import Array, Value
from engines.planned import SOURCE_SIZE
from schemas.errors import ModelError
from schemas.model import Border, PictureSpec

JOINED = "image"  # the array of the head whose answers for tiles make its answer for the picture


@dataclass(frozen=True, slots=True)
class Strip:
    """A tile along one side: it begins at `start` of the picture; the core is `[first, last)` of the picture."""

    start: int
    first: int
    last: int


@lru_cache(maxsize=256)
def strips(length: int, tile: int, overlap: int) -> tuple[Strip, ...]:
    """The tiles along a side of `length`; their cores cover it, each pixel once. `tile` is more than `2 * overlap`."""
    if length <= tile:
        return (Strip(0, 0, length),)
    step = tile - 2 * overlap
    starts = [*range(0, length - tile, step), length - tile]
    ends = [*(start + tile - overlap for start in starts[:-1]), length]
    return tuple(map(Strip, starts, [0, *ends[:-1]], ends))


@dataclass(slots=True)
class _Row:
    """A tile of the frames `[first, last)` of the windows, in all of which it is the same."""

    first: int
    last: int
    down: Strip
    across: Strip


@dataclass(eq=False)
class Tiles:
    """The tiles of one input of one part, as the rows that a model takes; see `engines.inference.sources.Source`.

    `made` takes the answers of head image: `image [W, H * s, W * s, 3]`, and `source_size [W, 2]`.
    """

    source: Source
    spec: PictureSpec
    made: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.array = np.asarray(self.source.array)  # on the host, from where the tiles are sent to the device
        index = self.source.index
        self._frames = range(len(self.array)) if index is None else index.tolist()
        self.size: Size = (self.array.shape[1], self.array.shape[2])
        assert self.spec.tile is not None
        self._tile: Size = self.spec.tile
        self._rows = list(self._found())

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one tile."""
        return (*self._tile, *self.array.shape[3:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one tile."""
        return prod(self.row) * self.array.itemsize

    @property
    def views(self) -> Sequence[View]:
        """A view for each tile: it is its own source."""
        return [View(self._tile, self._tile, self._tile)] * len(self)

    @property
    def held(self) -> int:
        """How many tiles are not computed, because they equal those of the frame before."""
        return sum(row.last - row.first - 1 for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def chosen(self, start: int, stop: int) -> RowSelection:
        """Tiles `[start, stop)`, cut."""
        cut = np.empty((stop - start, *self.row), self.array.dtype)
        for out, row in zip(cut, self._rows[start:stop], strict=True):
            found = self._cut(self._frames[row.first], row.down, row.across)
            out[:] = found if found.shape == out.shape else padded(found, self._tile, self.spec.border)
        return RowSelection(cut, None, 0, len(cut))

    def put(self, start: int, outputs: Mapping[str, Value]) -> None:
        """Take the answers of the tiles from `start` on. Raises ModelError for a size that is no multiple of theirs."""
        answer = np.asarray(outputs[JOINED])
        factor = answer.shape[1] // self._tile[0]
        if factor < 1 or answer.shape[1:3] != tuple(side * factor for side in self._tile):
            what = f"a tile of {self._tile[0]} x {self._tile[1]} became {answer.shape[1]} x {answer.shape[2]}"
            raise ModelError(what, "tiles are for models whose output is a whole number of times as large")
        whole = self.made.get(JOINED)
        if whole is None:
            sides = (side * factor for side in self.size)
            whole = self.made[JOINED] = np.empty((len(self._frames), *sides, *answer.shape[3:]), answer.dtype)
            self.made[SOURCE_SIZE] = np.full((len(self._frames), 2), self.size, np.int32)
        for tile, row in zip(answer, self._rows[start : start + len(answer)], strict=True):
            (to_down, of_down), (to_across, of_across) = (_core(each, factor) for each in (row.down, row.across))
            whole[row.first : row.last, to_down, to_across] = tile[of_down, of_across]

    def _found(self) -> Sequence[_Row]:
        """The tiles that differ from those of the frame before, frame by frame."""
        (height, width), (rows, columns), overlap = self.size, self._tile, self.spec.overlap
        places = [(d, a) for d in strips(height, rows, overlap) for a in strips(width, columns, overlap)]
        found: list[_Row] = []
        newest: list[_Row] = []  # of each place
        for number in range(len(self._frames)):
            fresh = [_Row(number, number + 1, *place) for place in places]
            if newest:
                same = self._same(number, places)
                fresh = [old if held else new for old, new, held in zip(newest, fresh, same, strict=True)]
            for row in fresh:
                if row.first == number:
                    found.append(row)
                row.last = number + 1
            newest = fresh
        return found

    def _same(self, number: int, places: Sequence[tuple[Strip, Strip]]) -> list[bool]:
        """Whether the tile at each place equals that of the frame before."""
        before, now = self._frames[number - 1], self._frames[number]
        if before == now:
            return [True] * len(places)
        return [np.array_equal(self._cut(before, *place), self._cut(now, *place)) for place in places]

    def _cut(self, frame: int, down: Strip, across: Strip) -> Array:
        rows, columns = self._tile
        cut: Array = self.array[frame, down.start : down.start + rows, across.start : across.start + columns]
        return cut


def padded(pixels: Array, size: Size, border: Border) -> Array:
    """`[H, W(, C)]` padded right and below to `size`: its last pixels repeated, or mirrored without the last one."""
    widths = [(0, to - side) for side, to in zip(pixels.shape[:2], size, strict=True)]
    return np.pad(pixels, [*widths, *[(0, 0)] * (pixels.ndim - 2)], "edge" if border == "edge" else "reflect")


def _core(strip: Strip, factor: int) -> tuple[slice, slice]:
    """Where a core lies in the answer for the picture, and where in that for its tile."""
    to = slice(strip.first * factor, strip.last * factor)
    return to, slice((strip.first - strip.start) * factor, (strip.last - strip.start) * factor)
