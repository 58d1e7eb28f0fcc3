"""Kernels for frames that differ in their addresses alone, which are the field `frames` of their struct."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.kernels import FILL, MOST_FRAMES

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_FILL_THREADS, _FILL_BLOCKS = 256, 64


class Kind:
    """One kernel for frames of one kind, with `each` addresses a frame.

    `across` and `down` are the blocks of one frame. `tables` are what the struct's other addresses point to.
    """

    __slots__ = ("across", "block", "down", "each", "name", "tables", "template")

    def __init__(
        self, name: str, template: Any, grid: tuple[int, int], block: tuple[int, int, int], each: int, tables: Any = ()
    ) -> None:
        self.name, self.template, self.block, self.each, self.tables = name, template, block, each, tables
        self.across, self.down = grid

    def launch(self, gpu: "CudaGpu", addresses: Sequence[int], stream: Any) -> None:
        """Queue it for any number of frames."""
        most = MOST_FRAMES * self.each
        for begin in range(0, len(addresses), most):
            some = addresses[begin : begin + most]
            given = self.template.copy()
            given["frames"][: len(some)] = some
            grid = self.across * (len(some) // self.each), self.down
            gpu.kernels.launch(self.name, grid, self.block, stream, given[()])


@lru_cache(maxsize=256)
def fill_kind(nbytes: int, value: int) -> Kind:
    """Return the kernel that sets all bytes of a row."""
    given = np.zeros((), FILL)
    blocks = min(_FILL_BLOCKS, -(-nbytes // (16 * _FILL_THREADS)))
    given["bytes"], given["value"], given["blocks"] = nbytes, value, blocks
    return Kind("fill", given, (blocks, 1), (_FILL_THREADS, 1, 1), 1)
