"""Draws on pictures that are on a GPU: collects the changes of a part, then makes all of them by one launch."""

from collections.abc import Sequence

import numpy as np

from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.kernels import CHANGE, DRAW, DRAWN
from engines.cuda.memory import Block
from engines.part import Array

_THREADS, _MOST_BLOCKS = 256, 1024


class GpuDrawing:
    """Planes `[N, h, w]` uint8 of N pictures. The given ones stay as they are, because other parts may share them."""

    def __init__(self, planes: Sequence[GpuRows]) -> None:
        self._planes = planes
        self._changes: dict[tuple[int, int], list[tuple[int, ...]]] = {}  # (picture, plane) -> fields of CHANGE
        self._data: list[bytes] = []  # masks, classes and tables, one after the other
        self._length = 0

    def surface(self, number: int) -> "_GpuSurface":
        """Return the picture of that number, to draw on."""
        return _GpuSurface(self, number, [(plane.shape[1], plane.shape[2]) for plane in self._planes])

    def finish(self) -> list[GpuRows]:
        """Return the planes of all pictures with their changes. Raises DeviceLost."""
        if not self._changes:
            return list(self._planes)
        rows = {(n, k): plane.rows[n] for k, plane in enumerate(self._planes) for n in range(len(plane))}
        drawn = {place: _new_row(rows[place]) for place in self._changes}
        self._launch(rows, drawn)
        every = rows | drawn
        return [GpuRows([every[n, k] for n in range(len(plane))]) for k, plane in enumerate(self._planes)]

    def change(self, place: tuple[int, int], *fields: int) -> None:
        """Append a change of a picture's plane; `fields` are those of CHANGE, where addresses are numbers of `keep`."""
        self._changes.setdefault(place, []).append(fields)

    def keep(self, data: Array) -> int:
        """Keep bytes that a change needs on the GPU, and return their number, which is not 0."""
        self._data.append(data.tobytes())
        begin, self._length = self._length, self._length + data.nbytes
        return begin + 1

    def _launch(self, rows: dict[tuple[int, int], GpuRow], drawn: dict[tuple[int, int], GpuRow]) -> None:
        gpu = next(iter(rows.values())).gpu
        listed = [fields for changes in self._changes.values() for fields in changes]
        size = len(drawn) * DRAWN.itemsize + len(listed) * CHANGE.itemsize + self._length
        with gpu.guarded():
            stream = gpu.stream()
            staged, block = gpu.pinned.take(size), gpu.memory.take(size)
            changes_at = len(drawn) * DRAWN.itemsize
            data_at = changes_at + len(listed) * CHANGE.itemsize
            host = staged.host(np.uint8, (size,))
            host[:changes_at] = self._pictures(rows, drawn).view(np.uint8)
            host[changes_at:data_at] = _changes(listed, block.pointer + data_at).view(np.uint8)
            host[data_at:] = np.frombuffer(b"".join(self._data), np.uint8)
            gpu.upload(block.pointer, host, stream)
            given = np.array((block.pointer, block.pointer + changes_at), DRAW)
            largest = max(row.nbytes for row in drawn.values())
            grid = min(-(-largest // _THREADS), _MOST_BLOCKS), len(drawn)
            gpu.kernels.launch("draw", grid, (_THREADS, 1, 1), stream, given[()])
            stream.synchronize()

    def _pictures(self, rows: dict[tuple[int, int], GpuRow], drawn: dict[tuple[int, int], GpuRow]) -> Array:
        table = np.zeros(len(drawn), DRAWN)
        first = 0
        for number, (place, changes) in enumerate(self._changes.items()):
            height, width = rows[place].shape
            pointers = rows[place].block.pointer, drawn[place].block.pointer
            table[number] = (*pointers, height, width, first, len(changes))
            first += len(changes)
        return table


class _GpuSurface:
    """One picture of a drawing; see `engines.outputs.surfaces.Surface`."""

    def __init__(self, drawing: GpuDrawing, number: int, sizes: list[tuple[int, int]]) -> None:
        self.sizes = sizes
        self._drawing = drawing
        self._number = number

    def mix(self, plane: int, top: int, left: int, share: Array, value: int) -> None:
        """Mix as `Surface.mix`."""
        (height, width), mask = share.shape, self._drawing.keep(share)
        self._change(plane, mask, 0, top, left, top + height, left + width, width, 1, 1, value)

    def fill(self, plane: int, top: int, left: int, bottom: int, right: int, value: int) -> None:
        """Fill as `Surface.fill`."""
        self._change(plane, 0, 0, top, left, bottom, right, 0, 1, 1, value)

    def tint(self, plane: int, classes: Array, step: tuple[int, int], values: Array, shares: Array) -> None:
        """Tint as `Surface.tint`."""
        keep, (height, width) = self._drawing.keep, self.sizes[plane]
        table = keep(np.concatenate([values, shares]))
        self._change(plane, keep(classes), table, 0, 0, height, width, classes.shape[1], *step, 0)

    def _change(self, plane: int, *fields: int) -> None:
        self._drawing.change((self._number, plane), *fields)


def _new_row(row: GpuRow) -> GpuRow:
    block: Block = row.gpu.memory.take(row.nbytes)
    return GpuRow(row.gpu, block, row.shape, row.dtype)


def _changes(listed: list[tuple[int, ...]], data: int) -> Array:
    """Return the changes as structs; `data`: the address at which the kept bytes begin on the GPU."""
    table = np.array(listed, np.int64)
    made = np.zeros(len(table), CHANGE)
    assert CHANGE.names is not None
    for name, column in zip(CHANGE.names, table.T, strict=True):
        made[name] = column
    for name in ("mask", "tables"):
        made[name] = np.where(made[name] > 0, made[name] - np.uint64(1) + np.uint64(data), 0)
    return made
