"""Applies the reductions of heads to outputs on a GPU: only what a head needs is copied to the host."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.kernels import BYTES, CANDIDATES, CLASSES, MOST_OUTPUTS
from engines.heads.reductions import ByteValues, ClassNumbers, Reduction, Selected, Selection, Stays
from engines.part import Array, Value

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block

_THREADS, _MOST_ROWS = 256, 65535  # of a grid in its second dimension
_LEAST_STAGING = 1 << 16  # pinned memory grows by powers of two from here on: few sizes, few allocations
_FLOATS = ("float16", "float32")
_PICTURES = (*_FLOATS, "uint8")
_COUNT = np.dtype(np.int32)


@dataclass(frozen=True, slots=True)
class Output:
    """An output `[N, ...]` of a batch, in `block` on the GPU."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    block: "Block"


@dataclass(frozen=True, slots=True)
class Reduced:
    """What reductions leave of the outputs of a batch: those to copy, those that stay, and selected candidates.

    Holds the memory of all `outputs`, which the stream may not have read yet.
    """

    outputs: Mapping[str, Output]
    whole: Mapping[str, Output]
    staying: Mapping[str, Output]
    selections: "_Selections | None"

    def selected(self) -> dict[str, Value]:
        """The selected candidates, once the stream has executed what was queued. Raises the driver's errors."""
        return self.selections.finish() if self.selections else {}


class Reducer:
    """Queues the reductions of a session's outputs.

    `reads` is a stream for copies of candidates: the stream of the model has the next batch already.
    """

    def __init__(self, gpu: "CudaGpu", reductions: Sequence[Reduction], reads: Any) -> None:
        self._gpu, self.reductions, self._reads = gpu, tuple(reductions), reads

    def queue(self, outputs: Mapping[str, Output], stream: Any) -> Reduced:
        """Queue the reductions behind the model, on its stream; hold what is returned until they are executed.

        An output is left as it is where no reduction reads it, or its reduction does not fit its dtype and shape.
        """
        whole, selecting, staying = dict(outputs), [], dict[str, Output]()
        for reduction in self.reductions:
            found = [outputs[name] for name in reduction.outputs if name in outputs]
            if len(found) < len(reduction.outputs) or not _fits(reduction, found):
                continue
            if isinstance(reduction, Selection):
                selecting.append(_Selecting(reduction, found))
            if isinstance(reduction, Selection | Stays):
                for name in reduction.outputs:
                    del whole[name]
            if isinstance(reduction, Stays):
                staying[reduction.output] = found[0]
            elif isinstance(reduction, ByteValues) and reduction.order:
                staying[reduction.output] = self._bytes_of(reduction, whole.pop(reduction.output), stream)
            elif not isinstance(reduction, Selection):
                whole[reduction.output] = self._bytes_of(reduction, found[0], stream)
        selections = _Selections(self._gpu, selecting, stream, self._reads) if selecting else None
        return Reduced(outputs, whole, staying, selections)

    def _bytes_of(self, reduction: ClassNumbers | ByteValues, output: Output, stream: Any) -> Output:
        shape, name, given = _planes(reduction, output)
        made = Output(np.dtype(np.uint8), shape, self._gpu.memory.take(max(1, prod(shape))))
        given["in"], given["out"] = output.block.pointer, made.block.pointer
        given["rows"], given["half"] = shape[0], output.dtype == np.float16
        _launch(self._gpu, name, given, prod(shape[1:]), shape[0], stream)
        return made


class _Selections:
    """The selections of a batch, queued on a stream. Holds their memory until they are copied."""

    def __init__(self, gpu: "CudaGpu", selections: Sequence["_Selecting"], stream: Any, reads: Any) -> None:
        self._gpu, self._selections, self._reads = gpu, selections, reads
        nbytes = len(selections) * _COUNT.itemsize
        self._counts, self._staging = gpu.memory.take(nbytes), gpu.pinned.take(nbytes)
        gpu.driver.memset_d8_async(self._counts.pointer, 0, nbytes, stream)
        self._records = []
        for number, each in enumerate(selections):
            records = gpu.memory.take(max(1, each.rows * each.places * each.record_bytes))
            given = each.struct(records.pointer, self._counts.pointer + number * _COUNT.itemsize)
            _launch(gpu, "candidates", given, each.places, each.rows, stream)
            self._records.append(records)
        gpu.download(self._found(), self._counts.pointer, stream)

    def _found(self) -> Array:
        return self._staging.host(_COUNT, (len(self._selections),))

    def finish(self) -> dict[str, Value]:
        """Copy the records that the kernels wrote, and no more."""
        sizes = [int(count) * each.record_bytes for count, each in zip(self._found(), self._selections, strict=True)]
        room = self._gpu.pinned.take(max(_LEAST_STAGING, 1 << sum(sizes).bit_length()))
        staged = np.split(room.host(np.uint8, (sum(sizes),)), np.cumsum(sizes)[:-1])
        for records, block in zip(staged, self._records, strict=True):
            if len(records):
                self._gpu.download(records, block.pointer, self._reads)
        self._reads.synchronize()
        made: dict[str, Value] = {}
        for each, records in zip(self._selections, staged, strict=True):
            made |= each.selected(records)
        return made


def _launch(gpu: "CudaGpu", name: str, given: Any, each_row: int, rows: int, stream: Any) -> None:
    if each_row and rows:
        grid = (-(-each_row // _THREADS), min(rows, _MOST_ROWS))
        gpu.kernels.launch(name, grid, (_THREADS, 1, 1), stream, given[()])


class _Selecting:
    """One selection from the outputs of a batch."""

    def __init__(self, selection: Selection, outputs: Sequence[Output]) -> None:
        self._selection, self._outputs = selection, outputs
        self._grid = _grid(selection, self._outputs[0].shape)
        self.rows, self.places = self._outputs[0].shape[0], prod(self._grid)
        self._columns = [prod(each.shape[1:]) // max(1, self.places) for each in self._outputs]
        self._offsets = list(self._laid_out())
        self.record_bytes = self._offsets.pop()

    def _laid_out(self) -> Iterator[int]:
        """Where the values of each output begin in a record, and where it ends; multiples of four."""
        at = _COUNT.itemsize
        for output, columns in zip(self._outputs, self._columns, strict=True):
            yield at
            at += -(-columns * output.dtype.itemsize // 4) * 4
        yield at

    def struct(self, out: int, count: int) -> Any:
        """What the kernel is given."""
        selection, given = self._selection, np.zeros((), CANDIDATES)
        names, steps = selection.outputs, (1, self.places) if selection.columns_first else (0, 1)
        given["out"], given["count"], given["outputs"] = out, count, len(names)
        given["rows"], given["places"], given["record_bytes"] = self.rows, self.places, self.record_bytes
        for number, (output, columns) in enumerate(zip(self._outputs, self._columns, strict=True)):
            given["in"][number], given["columns"][number] = output.block.pointer, columns
            given["place_step"][number], given["column_step"][number] = steps[0] or columns, steps[1]
            given["half"][number], given["offset"][number] = output.dtype == np.float16, self._offsets[number]
        scores = given["scores"] = names.index(selection.scores)
        columns = self._columns[int(scores)]
        given["first"], given["last"], _ = selection.columns.indices(columns)
        factor, given["factor_column"] = selection.factor or ("", 0)
        given["factor"] = names.index(factor) if factor else -1
        if selection.softmax is not None:
            given["softmax"] = 1
            given["softmax_first"], given["softmax_last"], _ = selection.softmax.indices(columns)
        given["least"] = selection.least
        return given

    def selected(self, records: Array) -> dict[str, Value]:
        """The outputs as heads read them, of the records `[K * record_bytes]` uint8 that the kernel wrote."""
        numbers = records.view(_COUNT).reshape(-1, self.record_bytes // _COUNT.itemsize)[:, 0]
        keys = np.sort(numbers.astype(np.int64) << 32 | np.arange(len(numbers)))  # in half the time of argsort
        rows, places = np.divmod(keys >> 32, max(1, self.places))
        records = np.take(records.reshape(-1, self.record_bytes), keys & 0xFFFFFFFF, axis=0)
        offsets = np.searchsorted(rows, np.arange(self.rows + 1)).astype(np.int64)
        made: dict[str, Value] = {}
        for name, output, columns, begin in zip(
            self._selection.outputs, self._outputs, self._columns, self._offsets, strict=True
        ):
            values = records[:, begin : begin + columns * output.dtype.itemsize].view(output.dtype)
            made[name] = Selected(values, offsets, places, self._grid)
        return made


def _planes(reduction: ClassNumbers | ByteValues, output: Output) -> tuple[tuple[int, ...], str, Any]:
    """The shape that a reduction makes of an output, its kernel, and the part of the kernel's struct that follows."""
    rows, *inner = output.shape
    channels = inner.pop(reduction.channels - 1) if len(inner) == 3 else 1
    pixels = prod(inner)
    steps = (pixels, 1) if reduction.channels == 1 else (1, channels)  # from channel to channel, from pixel to pixel
    if isinstance(reduction, ClassNumbers):
        given = np.zeros((), CLASSES)
        given["pixels"], given["channels"] = pixels, channels
        given["channel_step"], given["pixel_step"] = steps
        given["threshold"] = output.dtype.type(reduction.threshold)  # NumPy compares in the dtype of the array
        return (rows, *inner), "classes", given
    given = np.zeros((), BYTES)
    given["row_step"], given["columns"], given["whole"] = pixels * channels, 1, output.dtype == np.uint8
    given["black"], given["span"] = reduction.black, np.float32(reduction.white) - np.float32(reduction.black)
    if reduction.order:
        given["values"], given["step"], given["columns"] = pixels, steps[1], len(reduction.order)
        given["first"][: len(reduction.order)] = [channel * steps[0] for channel in reduction.order]
        return (rows, *inner, len(reduction.order)), "bytes", given
    if reduction.channel is None:
        given["values"], given["step"] = pixels * channels, 1
        return output.shape, "bytes", given
    given["values"], given["first"][0], given["step"] = pixels, reduction.channel * steps[0], steps[1]
    return (rows, *inner), "bytes", given


def _grid(selection: Selection, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if selection.columns_first else shape[1:-1]


def _fits(reduction: Reduction, outputs: Sequence[Output]) -> bool:
    """Whether the kernels read these dtypes, and the outputs have the dimensions that the reduction expects."""
    ranks = {len(output.shape) for output in outputs}
    if isinstance(reduction, Stays):
        return outputs[0].shape[0] > 0
    pictures = isinstance(reduction, ByteValues) and reduction.order
    if any(output.dtype not in (_PICTURES if pictures else _FLOATS) for output in outputs):
        return False
    if isinstance(reduction, ByteValues) and reduction.order:
        channels = outputs[0].shape[reduction.channels] if ranks == {4} else 1
        return ranks <= {3, 4} and max(reduction.order) < channels
    if not isinstance(reduction, Selection):
        return ranks <= {3, 4}
    grids = {_grid(reduction, output.shape) for output in outputs}
    laid_out = ranks == {3} if reduction.columns_first else min(ranks) > 1
    return laid_out and len(grids) == 1 and len(outputs) <= MOST_OUTPUTS
