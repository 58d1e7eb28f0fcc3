"""Arrays on a GPU that NumPy accepts as its own.

`np.stack`, `np.concatenate`, slices and row numbers work on the GPU; any other operation copies them to the host.
"""

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.memory import Block
from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu


_STAGED_BYTES = 32 << 20


class OnGpu:
    """Base of both kinds: shape, dtype, and the copy to the host."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def on_host(self) -> Array:
        """Return a copy on the host."""
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.on_host(), dtype)

    def __getitem__(self, key: Any) -> Any:
        return self.on_host()[key]

    def __array_function__(self, function: Any, types: Any, given: Any, named: Any) -> Any:
        if function is np.stack and all(isinstance(array, GpuRow) for array in given[0]):
            return GpuRows(given[0])
        if function is np.concatenate and not named and _are_alike(given):
            return GpuRows([row for array in given[0] for row in array.rows])
        return function(*_hosted(given), **{name: _hosted(value) for name, value in named.items()})


class GpuRow(OnGpu):
    """One frame, contiguous at `block.pointer`; its content is complete before the row is passed on."""

    def __init__(self, gpu: "CudaGpu", block: Block, shape: tuple[int, ...], dtype: Any = np.uint8) -> None:
        self.gpu = gpu
        self.block = block
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def on_host(self) -> Array:
        """Return a copy on the host."""
        row: Array = download_rows([self])[0]
        return row


class GpuRows(OnGpu):
    """Frames `[F, ...]`, each where it was made: a frame that two parts share exists once."""

    def __init__(self, rows: Sequence[GpuRow]) -> None:
        self.rows = tuple(rows)
        self.shape = (len(self.rows), *self.rows[0].shape)
        self.dtype = self.rows[0].dtype

    @cached_property
    def pointers(self) -> Array:
        """`[F]` uint64: the address of each frame; batch after batch takes some of them."""
        return np.array([row.block.pointer for row in self.rows], np.uint64)

    def __getitem__(self, key: Any) -> Any:
        """Rows of a slice or of an array of numbers stay on the GPU; any other index copies to the host.

        A number copies that row alone.
        """
        if isinstance(key, int | np.integer):
            return self.rows[key].on_host()
        if isinstance(key, slice) and self.rows[key]:
            return GpuRows(self.rows[key])
        if isinstance(key, np.ndarray) and key.ndim == 1 and key.size and key.dtype.kind in "iu":
            return GpuRows([self.rows[number] for number in key])
        return super().__getitem__(key)

    def on_host(self) -> Array:
        """Return a copy on the host."""
        return download_rows(self.rows)


def rows_of(gpu: "CudaGpu", block: Block, shape: Sequence[int], dtype: Any) -> GpuRows:
    """Return the rows of an array `shape` at `block.pointer`; the block is held as long as any of them."""
    step = prod(shape[1:]) * np.dtype(dtype).itemsize
    begins = (block.pointer + number * step for number in range(shape[0]))
    return GpuRows([GpuRow(gpu, Block(begin, step, block), tuple(shape[1:]), dtype) for begin in begins])


def download_rows(rows: Sequence[GpuRow]) -> Array:
    """Return frames `[F, ...]` on the host. Raises DeviceLost."""
    gpu, first = rows[0].gpu, rows[0]
    together = max(1, _STAGED_BYTES // max(1, first.nbytes))  # rows: pinned memory is dear
    made = np.empty((len(rows), *first.shape), first.dtype)
    with gpu.guarded():
        stream = gpu.stream()
        block = gpu.pinned.take(first.nbytes * min(together, len(rows)))
        for begin in range(0, len(rows), together):
            some = rows[begin : begin + together]
            staged = block.host(first.dtype, (len(some), *first.shape))
            for number, row in enumerate(some):
                gpu.download(staged[number], row.block.pointer, stream)
            stream.synchronize()
            made[begin : begin + together] = staged
    return made


def _are_alike(given: Any) -> bool:
    """Return whether the arguments of `np.concatenate` are rows on a GPU, all of one shape."""
    return len(given) == 1 and all(
        isinstance(array, GpuRows) and (array.shape[1:], array.dtype) == (given[0][0].shape[1:], given[0][0].dtype)
        for array in given[0]
    )


def _hosted(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.on_host()
    if isinstance(value, list | tuple):
        return type(value)(_hosted(each) for each in value)
    return value
