"""Windows of frames as the tensor a model wants, written straight into its batch slot by one kernel.

For models that take normalised floats: each value `v` of uint8 becomes `(v / 255 - mean) / std`, in the order of axes
and of the type that the model wants, whether frames come window by window or share windows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.arrays import GpuRows
from engines.cuda.kernels import PACK
from engines.part import Array

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_TYPES = {"uint8": 0, "float16": 1, "float32": 2}
_AXES = {"N": "stride_window", "T": "stride_frame", "H": "stride_y", "W": "stride_x", "C": "stride_channel"}


def pack_windows(
    gpu: "CudaGpu",
    frames: GpuRows,
    index: Array,
    pointer: int,
    dtype: str = "float32",
    axes: str = "NCTHW",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    stream: Any = None,
) -> tuple[list[Any], tuple[int, ...]]:
    """Queue the windows `index [N, T]` of `frames [F, H, W(, C)]` uint8 to `pointer`; what must be held, and the shape.

    `axes` is any order of N, T, H, W and C; without `mean` and `std` values stay 0 to 255.
    """
    stream = stream or gpu.stream()
    (count, length), (height, width, *colours) = index.shape, frames.shape[1:]
    sizes = {"N": count, "T": length, "H": height, "W": width, "C": colours[0] if colours else 1}
    given = np.zeros((), PACK)
    step = 1
    for axis in reversed(axes):
        given[_AXES[axis]] = step
        step *= sizes[axis]
    scale, shift = np.ones(4, np.float32), np.zeros(4, np.float32)
    if mean and std:
        scale[: len(std)] = 1 / (255 * np.asarray(std))
        shift[: len(mean)] = -np.asarray(mean) / np.asarray(std)
    given["scale"], given["shift"] = scale, shift
    pointers = frames.pointers[index.reshape(-1)]
    table, staging = gpu.memory.take(pointers.nbytes), gpu.pinned.take(pointers.nbytes)
    staged = staging.host(np.uint64, pointers.shape)
    staged[:] = pointers
    gpu.upload(table.pointer, staged, stream)
    given["rows"], given["out"], given["type"] = table.pointer, pointer, _TYPES[dtype]
    given["frames"], given["channels"] = length, sizes["C"]
    given["height"], given["width"] = height, width
    blocks = -(-height * width * sizes["C"] // 256)
    gpu.kernels.launch("pack", (blocks, count * length), (256, 1, 1), stream, given[()])
    return [frames, table, staging], tuple(sizes[axis] for axis in axes)
