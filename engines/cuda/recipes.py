"""What is launched for each frame of one kind, found by converting a frame whose addresses are symbols."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engines.cuda.arrays import GpuRow
from engines.cuda.batches import Work
from engines.cuda.burst_frame import source_of, symbol
from engines.cuda.kinds import Kind
from engines.cuda.memory import Block
from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

PLANES = 3  # the first sources are a frame's planes, the others the rows that are made of it


class Launch(NamedTuple):
    """A kernel of each frame; its addresses are `offsets` in `sources`, which count planes, then rows."""

    kind: Kind
    sources: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the arrays of a frame are made: `shapes` of its rows, what is launched, and which arrays they are.

    `arrays` are numbers of rows, or what is the same for all frames. Rows that are no array are used by kernels alone.
    """

    shapes: tuple[tuple[int, ...], ...]
    nbytes: tuple[int, ...]
    launches: tuple[Launch, ...]
    arrays: Mapping[str, "int | Array"]


class Trace(Work):
    """Records what is launched for one frame, in place of `Batches`."""

    def __init__(self, gpu: "CudaGpu") -> None:
        self._gpu = gpu
        self._rows: list[GpuRow] = []
        self._launches: list[Launch] = []

    def row(self, shape: tuple[int, ...], nbytes: int) -> GpuRow:
        """Return a row whose address is a symbol."""
        row = GpuRow(self._gpu, Block(symbol(PLANES + len(self._rows)), nbytes, None), shape)
        self._rows.append(row)
        return row

    def put(self, kind: Kind, addresses: tuple[int, ...]) -> None:
        """Record a kernel."""
        sources, offsets = zip(*map(source_of, addresses), strict=True)
        self._launches.append(Launch(kind, sources, offsets))

    def hold(self, thing: Any, nbytes: int = 0) -> None:
        """Do nothing: nothing is in memory."""

    def recipe(self, arrays: Mapping[str, Any]) -> Recipe:
        """Return what was recorded; `arrays` are those of the frame."""
        numbers = {id(row): number for number, row in enumerate(self._rows)}
        return Recipe(
            tuple(row.shape for row in self._rows),
            tuple(row.block.nbytes for row in self._rows),
            tuple(self._launches),
            {name: numbers.get(id(array), array) for name, array in arrays.items()},
        )


def traced(gpu: "CudaGpu", make: Callable[[Trace], Mapping[str, Any]]) -> Recipe:
    """Return the recipe of the arrays that `make` makes of a frame whose planes are symbols."""
    trace = Trace(gpu)
    return trace.recipe(make(trace))
