"""Makes 4:2:0 planes of RGB pictures on a GPU, with the bytes of swscale's exact path.

Luma is a matrix of each pixel; chroma one of the sum of two pixels of a line, then a cubic filter down. The matrix has
15 bits, for limited range (FFmpeg, libswscale/utils.c, `fill_rgb2yuv_table`).
"""

from math import prod
from typing import Any

import numpy as np

from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import uploaded
from engines.cuda.filters import DOWN_ONE, inverse_matrix, taps
from engines.cuda.kernels import YUV420

_THREADS = 128
_COLUMNS, _LINES = 4, 4  # of luma and of chroma that a thread makes


def yuv420_rows(pictures: GpuRows, matrix: int) -> list[GpuRows]:
    """Return Y, Cb and Cr of pictures `[N, H, W, 3]` uint8 of even sides, by an AVColorSpace. Raises DeviceLost."""
    gpu, (height, width) = pictures.rows[0].gpu, pictures.shape[1:3]
    sizes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    with gpu.guarded():
        stream = gpu.stream()
        made = [[GpuRow(gpu, gpu.memory.take(prod(size)), size) for _ in pictures.rows] for size in sizes]
        addresses = [pictures.pointers, *(GpuRows(rows).pointers for rows in made)]
        given, held = np.zeros((), YUV420), list[Any]()
        down = taps(height, height // 2, True, DOWN_ONE)
        for name, table in (("first", down.first), ("weights", down.weights), ("pictures", np.stack(addresses, 1))):
            given[name], used = uploaded(gpu, table, stream)
            held += used
        given["taps"], given["height"], given["width"] = down.count, height, width
        given["matrix"] = inverse_matrix(matrix)
        threads = -(-width // _COLUMNS) * -(-(height // 2) // _LINES)
        grid = -(-threads // _THREADS), len(pictures)
        gpu.kernels.launch("yuv420", grid, (_THREADS, 1, 1), stream, given[()])
        stream.synchronize()
        del held
    return [GpuRows(rows) for rows in made]
