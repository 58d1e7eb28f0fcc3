"""Copies arrays of the host to a GPU."""

from typing import TYPE_CHECKING, Any

import numpy as np

from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block


def kept_table(gpu: "CudaGpu", array: Array, tables: list[Any]) -> int:
    """Return the address of an array on the GPU, copied at once; `tables` keeps it."""
    tables.append(block := copied(gpu, array))
    return block.pointer


def copied(gpu: "CudaGpu", array: Array) -> "Block":
    """Return a copy of an array on the GPU, which kernels of any stream may read from now on.

    The driver's own `memcpy_htod` does not do that: it may return while the last bytes of memory that is not pinned are
    on their way (CUDA, "API synchronization behavior"), and our streams do not wait for the stream that it uses.
    """
    stream = gpu.stream()
    _, held = uploaded(gpu, np.ascontiguousarray(array), stream)
    stream.synchronize()
    block: Block = held[0]
    return block


def uploaded(gpu: "CudaGpu", array: Array, stream: Any) -> tuple[int, list[Any]]:
    """Queue a copy of an array to the GPU; return its address there, and what must be held until it was read."""
    block, staging = gpu.memory.take(max(1, array.nbytes)), gpu.pinned.take(max(1, array.nbytes))
    staged = staging.host(array.dtype, array.shape)
    staged[...] = array
    if array.nbytes:
        gpu.upload(block.pointer, staged, stream)
    return block.pointer, [block, staging]
