"""Gathers the rows of a batch on a GPU, wherever each of them lies."""

from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.arrays import GpuRows
from engines.cuda.copies import uploaded
from engines.cuda.kernels import GATHER
from engines.cuda.tiles import GpuTiles
from engines.inference.session import RowBatch, RowSelection
from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_THREADS, _MOST_BLOCKS, _MOST_ROWS = 256, 64, 65535  # of a grid: its lines, and its second dimension


def gather(gpu: "CudaGpu", pointer: int, rows: RowBatch, count: int, stream: Any) -> list[Any]:
    """Queue the copies of rows, one after the other, to `pointer`; return what must be held until they are done.

    The first row is repeated behind them up to `count` rows: a model may fail on values that are none, such as numbers
    of words that are not there.
    """
    held: list[Any] = []
    pointers = np.concatenate([_pointers(gpu, span, held, stream) for span in rows.spans])
    if not len(pointers):
        return held
    given = np.zeros((), GATHER)
    given["row_bytes"] = row_bytes = rows.nbytes // len(pointers)
    first = pointers[: len(pointers) // rows.shape[0]]
    pointers = np.concatenate([pointers, np.tile(first, count - rows.shape[0])])
    table, used = uploaded(gpu, pointers, stream)
    blocks = min(_MOST_BLOCKS, max(1, -(-row_bytes // (_THREADS * 16))))
    for begin in range(0, len(pointers), _MOST_ROWS):
        given["count"] = count = min(_MOST_ROWS, len(pointers) - begin)
        given["rows"], given["out"] = table + 8 * begin, pointer + begin * row_bytes
        gpu.kernels.launch("gather", (blocks, count), (_THREADS, 1, 1), stream, given[()])
    return [*held, *used]


def _pointers(gpu: "CudaGpu", span: RowSelection, held: list[Any], stream: Any) -> Array:
    """Return the addresses of a span's rows on the GPU, `[n]` uint64; those of the host are copied there."""
    array: Any = span.array
    held.append(array)
    if isinstance(array, GpuTiles):
        chosen, used = array.cut(span.first, span.last, stream)
        held += used
    elif isinstance(array, GpuRows):
        chosen = array.pointers[span.first : span.last]
    else:
        some = np.ascontiguousarray(array[span.first : span.last])
        address, used = uploaded(gpu, some, stream)
        held += used
        chosen = np.uint64(address) + np.arange(len(some), dtype=np.uint64) * np.uint64(
            some.nbytes // max(1, len(some))
        )
    return chosen if span.rows is None else chosen[span.rows.reshape(-1) - span.first]
