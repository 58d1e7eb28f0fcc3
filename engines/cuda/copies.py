"""Copies arrays of the host to a GPU."""

from typing import TYPE_CHECKING, Any

import numpy as np

from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu


def kept_table(gpu: "CudaGpu", array: Array, tables: list[Any]) -> int:
    """Return the address of an array on the GPU, copied at once; `tables` keeps it."""
    block = gpu.memory.take(array.nbytes)
    gpu.driver.memcpy_htod(block.pointer, np.ascontiguousarray(array))
    gpu.counters.to_gpu_bytes += array.nbytes
    tables.append(block)
    return block.pointer


def uploaded(gpu: "CudaGpu", array: Array, stream: Any) -> tuple[int, list[Any]]:
    """Queue a copy of an array to the GPU; return its address there, and what must be held until it was read."""
    block, staging = gpu.memory.take(max(1, array.nbytes)), gpu.pinned.take(max(1, array.nbytes))
    staged = staging.host(array.dtype, array.shape)
    staged[...] = array
    if array.nbytes:
        gpu.upload(block.pointer, staged, stream)
    return block.pointer, [block, staging]
