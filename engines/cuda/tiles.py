"""Tiles of pictures that are on a GPU: cut, compared and put together there.

`engines.inference.tiles` decides which, and does the same on the host.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from engines.cuda.arrays import GpuRow, GpuRows, OnGpu, rows_of
from engines.cuda.copies import uploaded
from engines.cuda.kernels import COPY, DIFFER, PAIR, RECTANGLE
from engines.geometry import Piece
from engines.part import Array, is_on_gpu

_THREADS, _MOST_BLOCKS, _MOST_ROWS = 256, 1024, 65535  # of a grid: its lines, and its second dimension


class GpuTiling:
    """The tiles of `pictures [F, H, W(, C)]`, (height, width) of `tile`; `mirrored`: beyond the picture."""

    def __init__(self, pictures: GpuRows, tile: tuple[int, int], mirrored: bool) -> None:
        self._pictures, self._tile, self._mirrored = pictures, tile, mirrored
        self._gpu = pictures.rows[0].gpu
        self._pixel_bytes = prod(pictures.shape[3:]) * pictures.itemsize
        self._pitch = pictures.shape[2] * self._pixel_bytes

    def same(self, pairs: Sequence[tuple[int, int]], corners: Sequence[tuple[int, int]]) -> Array:
        """Return `[P, C]` bool: whether both frames of a pair have the same pixels in the tile at each corner."""
        gpu, shape = self._gpu, (len(pairs), len(corners))
        pointers = self._pictures.pointers
        one, other = (pointers[[pair[side] for pair in pairs]][:, None] for side in (0, 1))
        table = np.zeros(shape, PAIR)
        table["one"], table["other"] = one + self._offsets(corners), other + self._offsets(corners)
        height, width = np.minimum(self._tile, self._pictures.shape[1:3])
        table["pitch"], table["width"] = self._pitch, width * self._pixel_bytes
        table["height"] = np.where(one == other, 0, height)
        with gpu.guarded():
            stream, nbytes = gpu.stream(), table.size * 4
            found, staging = gpu.memory.take(nbytes), gpu.pinned.take(nbytes)
            gpu.driver.memset_d8_async(found.pointer, 0, nbytes, stream)
            address, held = uploaded(gpu, table.reshape(-1), stream)
            for begin in range(0, table.size, _MOST_ROWS):
                given = np.array((address + begin * PAIR.itemsize, found.pointer + begin * 4), DIFFER)
                grid = min(_MOST_BLOCKS, int(height)), min(_MOST_ROWS, table.size - begin)
                gpu.kernels.launch("differ", grid, (_THREADS, 1, 1), stream, given[()])
            differ = staging.host(np.int32, shape)
            gpu.download(differ, found.pointer, stream)
            stream.synchronize()
            del held
        return np.asarray(differ == 0)

    def cut(self, chosen: Sequence[tuple[int, int, int]]) -> "GpuTiles":
        """Return the tiles that begin in a frame at a line and a column; a batch of a session cuts them."""
        frames, corners = [each[0] for each in chosen], [each[1:] for each in chosen]
        table = np.zeros(len(chosen), RECTANGLE)
        table["source"] = self._pictures.pointers[frames] + self._offsets(corners)
        table["source_pitch"], table["out_pitch"] = self._pitch, self._tile[1] * self._pixel_bytes
        table["height"], table["width"] = self._tile
        table["read_height"], table["read_width"] = (np.array(self._pictures.shape[1:3]) - corners).T
        return GpuTiles(self._pictures, table, self._tile, self._mirrored)

    def canvas(self, count: int, size: tuple[int, int], answer: Array) -> GpuRows:
        """Return `count` pictures at `size` (height, width) for such answers; their content is undefined."""
        shape = (*size, *answer.shape[3:])
        nbytes = prod(shape) * answer.dtype.itemsize
        return GpuRows([GpuRow(self._gpu, self._gpu.memory.take(nbytes), shape, answer.dtype) for _ in range(count)])

    def paste(self, canvas: GpuRows, answer: Array, pieces: Sequence[Piece]) -> None:
        """Copy pieces of the tiles' answers `[n, h, w(, C)]` into pictures. Raises DeviceLost."""
        gpu = self._gpu
        pixel_bytes = prod(canvas.shape[3:]) * canvas.itemsize
        with gpu.guarded():
            stream = gpu.stream()
            tiles, held = _pointers(gpu, answer, stream)
            pitches = [each.shape[2] * pixel_bytes for each in (answer, canvas)]
            listed = [
                (
                    tiles[piece.tile] + _offset(piece.begin, pitches[0], pixel_bytes),
                    canvas.rows[frame].block.pointer + _offset(piece.to, pitches[1], pixel_bytes),
                    *pitches,
                    *piece.size,
                    *piece.size,
                )
                for piece in pieces
                for frame in piece.frames
            ]
            held += _copied(gpu, np.array(listed, RECTANGLE), pixel_bytes, False, stream)
            stream.synchronize()
            del held

    def _offsets(self, corners: Sequence[tuple[int, ...]]) -> Array:
        top, left = np.array(corners, np.uint64).reshape(-1, 2).T
        return np.asarray(top * np.uint64(self._pitch) + left * np.uint64(self._pixel_bytes))


class GpuTiles(OnGpu):
    """Tiles `[n, h, w(, C)]` that are not cut yet, of pictures on a GPU; see `GpuTiling.cut`."""

    def __init__(self, pictures: GpuRows, table: Array, tile: tuple[int, int], mirrored: bool) -> None:
        self.shape, self.dtype = (len(table), *tile, *pictures.shape[3:]), pictures.dtype
        self._pictures, self._table, self._mirrored = pictures, table, mirrored

    def cut(self, first: int, last: int, stream: Any) -> tuple[Array, list[Any]]:
        """Queue the tiles `[first, last)`; return their addresses, and what must be held until they were read."""
        gpu, step = self._pictures.rows[0].gpu, self.nbytes // len(self)
        block, table = gpu.memory.take((last - first) * step), self._table[first:last].copy()
        table["out"] = block.pointer + np.arange(last - first, dtype=np.uint64) * np.uint64(step)
        pixel_bytes = prod(self.shape[3:]) * self.itemsize
        return table["out"], [block, *_copied(gpu, table, pixel_bytes, self._mirrored, stream)]

    def on_host(self) -> Array:
        """Return a copy on the host."""
        gpu = self._pictures.rows[0].gpu
        with gpu.guarded():
            _, held = self.cut(0, len(self), gpu.stream())
            return rows_of(gpu, held[0], self.shape, self.dtype).on_host()


def _copied(gpu: Any, table: Array, pixel_bytes: int, mirrored: bool, stream: Any) -> list[Any]:
    """Queue copies of rectangles; return what must be held until they are done."""
    address, held = uploaded(gpu, table, stream)
    for begin in range(0, len(table), _MOST_ROWS):
        some = table[begin : begin + _MOST_ROWS]
        given = np.array((address + begin * RECTANGLE.itemsize, pixel_bytes, mirrored), COPY)
        grid = min(_MOST_BLOCKS, int(some["height"].max())), len(some)
        gpu.kernels.launch("copy", grid, (_THREADS, 1, 1), stream, given[()])
    return held


def _pointers(gpu: Any, answer: Array, stream: Any) -> tuple[list[int], list[Any]]:
    """Return the address of each row of an array, which is copied to the GPU if it is on the host."""
    if is_on_gpu(answer):
        return [int(each) for each in answer.pointers], [answer]  # type: ignore[attr-defined]
    address, held = uploaded(gpu, np.ascontiguousarray(answer), stream)
    return [address + number * (answer.nbytes // len(answer)) for number in range(len(answer))], held


def _offset(place: tuple[int, int], pitch: int, pixel_bytes: int) -> int:
    return place[0] * pitch + place[1] * pixel_bytes
