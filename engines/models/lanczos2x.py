"""Builds `lanczos2x`: a plane at twice its size, by Lanczos-3.

`out[2i + p] = round(sum_k w_p(k) * in[i + k])` in both directions, `k = -3 ... 3`, `in` repeated past its edges,
`w_p(k) = L(p/2 - 1/4 - k)` normalised to sum 1, and `L(x) = sinc(x) sinc(x / 3)` for `|x| < 3`, else 0. The centres
of the two grids coincide, which puts output pixels a quarter of a pixel beside the input's.

Seven taps a pixel are far too few to fill a matrix unit, so sixteen pixels are computed at once from the twenty-two
they depend on, by one dense 32 x 22 matrix: the rows by a convolution of stride 16, the columns by a product over
gathered rows. That is three times the arithmetic of seven taps in each direction, and less than half the time of the
7 x 7 convolution.
"""

import numpy as np

from engines.models.graph import FLOAT, UINT8, Graph
from engines.part import Array
from schemas.model import ModelSpec, TensorSpec

REACH = 3  # taps to each side
BLOCK = 16  # input pixels computed together; 8 to 32 are within 10 % of each other


def taps() -> Array:
    """Return the weights of both phases `[2, 7]` float64, for offsets -3 ... 3."""
    distance = np.array([[-0.25], [0.25]]) - np.arange(-REACH, REACH + 1)
    weights = np.where(np.abs(distance) < REACH, np.sinc(distance) * np.sinc(distance / REACH), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def build() -> tuple[ModelSpec, bytes]:
    """Return model card and ONNX file."""
    graph = Graph()
    height, width = _size(graph, "plane", 1), _size(graph, "plane", 2)
    doubled = _double_columns(graph, _double_rows(graph, "plane", width), height)
    clipped = graph.op("Clip", graph.op("Round", doubled), np.float32(0), np.float32(255))
    ends = graph.op("Mul", graph.op("Concat", height, width, axis=0), np.array([2]))
    pixels = graph.op("Cast", clipped, to=UINT8)
    graph.op("Slice", pixels, np.array([0, 0]), ends, np.array([1, 2]), result="doubled")
    return graph.finish(
        ModelSpec(
            name="lanczos2x",
            description="a plane at twice its size, by Lanczos-3",
            inputs=(TensorSpec(name="plane", dtype="uint8", shape=("N", "H", "W")),),
            outputs=(TensorSpec(name="doubled", dtype="uint8", shape=("N", "H2", "W2")),),
            sha256="",
        )
    )


def _matrix() -> Array:
    """Return `[32, 22]`: the weights of thirty-two output pixels of sixteen input pixels and three to each side."""
    matrix = np.zeros((BLOCK, 2, BLOCK + 2 * REACH))
    for pixel in range(BLOCK):
        matrix[pixel, :, pixel : pixel + 2 * REACH + 1] = taps()
    return matrix.reshape(2 * BLOCK, -1).astype(np.float32)


def _size(graph: Graph, value: str, axis: int) -> str:
    """Return `[1]` int64: the length of an axis."""
    return graph.op("Slice", graph.op("Shape", value), np.array([axis]), np.array([axis + 1]))


def _double_rows(graph: Graph, plane: str, width: str) -> str:
    """Convert `[N, H, W]` uint8 to `[N, H, 2W']` float; W' is W rounded up to whole blocks."""
    spare = graph.op("Mod", graph.op("Sub", np.array([0]), width), np.array([BLOCK]))
    right = graph.op("Add", spare, np.array([REACH]))
    pads = graph.op("Concat", np.array([0, 0, REACH, 0, 0]), right, axis=0)
    # floats: ONNX Runtime pads bytes on the processor, also where it computes the rest on a GPU
    padded = graph.op("Pad", graph.op("Cast", plane, to=FLOAT), pads, mode="edge")
    kernel = _matrix()[:, None, None, :]
    blocks = graph.op("Conv", graph.op("Unsqueeze", padded, np.array([1])), kernel, strides=[1, BLOCK])
    return graph.op("Reshape", graph.op("Transpose", blocks, perm=[0, 2, 3, 1]), np.array([0, 0, -1]))


def _double_columns(graph: Graph, rows: str, height: str) -> str:
    """Convert `[N, H, 2W']` float to `[N, 2H', 2W']` float; H' is H rounded up to whole blocks."""
    zero, step, one = np.int64(0), np.int64(BLOCK), np.array([1])
    starts = graph.op("Range", zero, graph.op("Squeeze", height), step)
    window = graph.op("Add", graph.op("Unsqueeze", starts, one), np.arange(-REACH, BLOCK + REACH))
    last = graph.op("Squeeze", graph.op("Sub", height, one))
    within = graph.op("Min", graph.op("Max", window, zero), last)  # repeats the edges
    blocks = graph.op("MatMul", _matrix(), graph.op("Gather", rows, within, axis=1))  # [N, H'/16, 32, 2W']
    shape = graph.op("Concat", np.array([0, -1]), _size(graph, rows, 2), axis=0)
    return graph.op("Reshape", blocks, shape)
