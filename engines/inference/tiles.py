"""Cuts pictures into tiles of one size for a model, and puts the answers together. Nothing is blended.

A tile has a core, whose answer is used, and around it context of `overlap` source pixels. At the edges of the picture
there is no context: a tile there begins or ends with the picture, and the last one is moved inwards, so that each lies
wholly in the picture, but for less than `align` pixels. Where `overlap` is at least the radius that the network sees,
the answer is that of the whole picture; with less, pixels near seams differ, and the geometry, which is in the model's
card, decides by how much.

A picture that is smaller than a tile is padded right and below, and the answer is cropped: within the network's radius
of those two sides it is the answer for the padded picture.

A tile that equals the one at its place in the frame before is computed once: animation holds its drawings for two or
three frames, and backgrounds for longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any, cast

import numpy as np

from engines.cuda.arrays import GpuRows
from engines.cuda.tiles import GpuTiling
from engines.geometry import Piece
from engines.heads.view import Size, View
from engines.inference.session import RowSelection
from engines.inference.sources import Source
from engines.part import Array, Value
from engines.planned import SOURCE_SIZE
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.picture import PictureSpec

JOINED = "image"  # the array of the head whose answers for tiles make its answer for the picture


@dataclass(frozen=True, slots=True)
class Strip:
    """A tile along one side: it begins at `start` of the picture; the core is `[first, last)` of the picture."""

    start: int
    first: int
    last: int


@lru_cache(maxsize=256)
def strips(length: int, tile: int, overlap: int, align: int = 1) -> tuple[Strip, ...]:
    """The tiles along a side of `length`; their cores cover it, each pixel once. `tile` is more than `2 * overlap`.

    Each begins at a multiple of `align`: the last one may go beyond the picture by less than that, and is padded there.
    """
    if length <= tile:
        return (Strip(0, 0, length),)
    step, last = tile - 2 * overlap, -(-(length - tile) // align) * align
    starts = [*range(0, last, step), last]
    ends = [*(start + tile - overlap for start in starts[:-1]), length]
    return tuple(map(Strip, starts, [0, *ends[:-1]], ends))


def tiles_in(size: Size, spec: PictureSpec) -> int:
    """Return how many tiles a picture of a size (height, width) has."""
    assert spec.tile is not None
    down, across = (strips(*side, spec.overlap, spec.align) for side in zip(size, spec.tile, strict=True))
    return len(down) * len(across)


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
    made: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.array, index = self.source.array, self.source.index
        self._frames = range(len(self.array)) if index is None else index.tolist()
        self.size: Size = (self.array.shape[1], self.array.shape[2])
        assert self.spec.tile is not None
        self._tile: Size = self.spec.tile
        mirrored = self.spec.border == "reflect"
        self._tiling: HostTiling | GpuTiling = (
            GpuTiling(self.array, self._tile, mirrored)
            if isinstance(self.array, GpuRows)
            else HostTiling(self.array, self._tile, mirrored)
        )
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
        """Tiles `[start, stop)`, cut; of pictures on a GPU they are cut there, as part of the batch."""
        rows = self._rows[start:stop]
        cut = self._tiling.cut([(self._frames[row.first], row.down.start, row.across.start) for row in rows])
        return RowSelection(cast(Array, cut), None, 0, len(rows))

    def put(self, start: int, outputs: Mapping[str, Value]) -> None:
        """Take the answers of the tiles from `start` on. Raises ModelError for a size that is no multiple of theirs."""
        answer = outputs[JOINED]
        assert not isinstance(answer, Ragged), "head image makes pictures"
        factor = answer.shape[1] // self._tile[0]
        if factor < 1 or answer.shape[1:3] != tuple(side * factor for side in self._tile):
            what = f"a tile of {self._tile[0]} x {self._tile[1]} became {answer.shape[1]} x {answer.shape[2]}"
            raise ModelError(what, "tiles are for models whose output is a whole number of times as large")
        rows = self._rows[start : start + len(answer)]
        if isinstance(answer, GpuRows) and self._tile == self.size:
            pictures = [made for made, row in zip(answer.rows, rows, strict=True) for _ in range(row.first, row.last)]
            before = self.made[JOINED].rows if JOINED in self.made else ()
            self.made[JOINED] = GpuRows([*before, *pictures])  # a tile is a picture, and nothing is copied
            self.made[SOURCE_SIZE] = np.full((len(self._frames), 2), self.size, np.int32)
            return
        if JOINED not in self.made:
            size = self.size[0] * factor, self.size[1] * factor
            self.made[JOINED] = self._tiling.canvas(len(self._frames), size, answer)
            self.made[SOURCE_SIZE] = np.full((len(self._frames), 2), self.size, np.int32)
        pieces = [_piece(number, row, factor) for number, row in enumerate(rows)]
        self._tiling.paste(self.made[JOINED], answer, pieces)

    def _found(self) -> Sequence[_Row]:
        """The tiles that differ from those of the frame before, frame by frame."""
        (height, width), (rows, columns), overlap = self.size, self._tile, self.spec.overlap
        down, across = (strips(*side, overlap, self.spec.align) for side in ((height, rows), (width, columns)))
        places = [(d, a) for d in down for a in across]
        if not self._frames:
            return []
        corners = [(down.start, across.start) for down, across in places]
        pairs = list(pairwise(self._frames))
        first = [_Row(0, 1, *place) for place in places]
        found, newest = [*first], first  # all, and the newest of each place
        for number, held in enumerate(self._tiling.same(pairs, corners) if pairs else (), 1):
            newest = [
                old if is_held else _Row(number, number + 1, *place)
                for old, is_held, place in zip(newest, held, places, strict=True)
            ]
            for row in newest:
                row.last = number + 1
            found += [row for row in newest if row.first == number]
        return found


class HostTiling:
    """The tiles of `pictures [F, H, W(, C)]` on the host, as `engines.cuda.tiles.GpuTiling` does them on a GPU."""

    def __init__(self, pictures: Array, tile: Size, mirrored: bool) -> None:
        self._pictures, self._tile, self._mirrored = pictures, tile, mirrored

    def same(self, pairs: Sequence[tuple[int, int]], corners: Sequence[tuple[int, int]]) -> list[list[bool]]:
        """Return for each pair of frames whether they have the same pixels in the tile at each corner."""
        return [
            [
                before == now or np.array_equal(self._there(before, *corner), self._there(now, *corner))
                for corner in corners
            ]
            for before, now in pairs
        ]

    def cut(self, chosen: Sequence[tuple[int, int, int]]) -> Array:
        """Return the tiles that begin in a frame at a line and a column, `[n, h, w(, C)]`."""
        cut = np.empty((len(chosen), *self._tile, *self._pictures.shape[3:]), self._pictures.dtype)
        for out, (frame, top, left) in zip(cut, chosen, strict=True):
            found = self._there(frame, top, left)
            out[:] = found if found.shape == out.shape else padded(found, self._tile, self._mirrored)
        return cut

    def canvas(self, count: int, size: Size, answer: Array) -> Array:
        """Return `count` pictures at `size` for such answers; their content is undefined."""
        return np.empty((count, *size, *answer.shape[3:]), answer.dtype)

    def paste(self, canvas: Array, answer: Array, pieces: Sequence[Piece]) -> None:
        """Copy pieces of the tiles' answers `[n, h, w(, C)]` into pictures."""
        answer = np.asarray(answer)
        for piece in pieces:
            (top, left), (height, width), (down, right) = piece.to, piece.size, piece.begin
            core = answer[piece.tile, down : down + height, right : right + width]
            canvas[piece.frames.start : piece.frames.stop, top : top + height, left : left + width] = core

    def _there(self, frame: int, top: int, left: int) -> Array:
        rows, columns = self._tile
        there: Array = self._pictures[frame, top : top + rows, left : left + columns]
        return there


def padded(pixels: Array, size: Size, mirrored: bool) -> Array:
    """`[H, W(, C)]` padded right and below to `size`: its last pixels repeated, or mirrored without the last one."""
    widths = [(0, to - side) for side, to in zip(pixels.shape[:2], size, strict=True)]
    return np.pad(pixels, [*widths, *[(0, 0)] * (pixels.ndim - 2)], "reflect" if mirrored else "edge")


def _piece(number: int, row: _Row, factor: int) -> Piece:
    """The core of a tile, `factor` times as large."""
    sides = row.down, row.across
    begin, size, to = (
        (one * factor, other * factor)
        for one, other in (
            [side.first - side.start for side in sides],
            [side.last - side.first for side in sides],
            [side.first for side in sides],
        )
    )
    return Piece(number, begin, size, range(row.first, row.last), to)
