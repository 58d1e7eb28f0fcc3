"""Builds `shotchange`: a score for a cut between the two frames of a window.

Both frames become a grid of 18 x 32 blocks of 5 x 5 pixels, in BT.601 luma and chroma, scaled to 0 ... 7. Then

- `h`, how much the colours differ: in each of 3 x 4 regions and each channel a histogram of eight bins, a block
  falling into its two nearest bins by linear interpolation; half the absolute difference of the histograms, mean of
  the regions, luma counting half and each chroma a quarter;
- `s`, how much the picture's structure differs: `1 - (2 cov(a, b) + K) / (var(a) + var(b) + K)` of the luma blocks,
  which is the structure term of SSIM over the whole picture.

Motion shuffles the structure but keeps the colours; flicker and flashes change the colours but keep the structure;
a cut changes both. So `score = sigmoid((sqrt(h s) - MIDDLE) / WIDTH)`. On real clips `sqrt(h s)` is below 0.25 within
a shot and above 0.40 on a hard cut.
"""

import numpy as np

from engines.models.graph import FLOAT, Graph
from schemas.model import ModelSpec, TensorSpec

HEIGHT, WIDTH_PIXELS = 90, 160
BLOCK = 5
REGION = (6, 8)  # blocks
BINS = 8
CHANNELS = (0.5, 0.25, 0.25)
K = 0.003  # about two grey levels squared, in steps of a bin
MIDDLE = 0.32
WIDTH = 0.03

# ITU-R BT.601, full range: Y, Cb, Cr from R, G, B
COLOURS = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def build() -> tuple[ModelSpec, bytes]:
    """Return model card and ONNX file."""
    graph = Graph()
    blocks = _blocks(graph)
    product = graph.op("Mul", _colour_change(graph, blocks), _structure_change(graph, blocks))
    change = graph.op("Sub", graph.op("Sqrt", product), np.float32(MIDDLE))
    graph.op("Sigmoid", graph.op("Div", change, np.float32(WIDTH)), result="score")
    return graph.finish(
        ModelSpec(
            name="shotchange",
            description="how surely a cut lies between two frames, 0 ... 1",
            inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("W", 2, HEIGHT, WIDTH_PIXELS, 3)),),
            outputs=(TensorSpec(name="score", dtype="float32", shape=("W",)),),
            sha256="",
        )
    )


def _blocks(graph: Graph) -> str:
    """Return `[2W, 3, 18, 32]`: each block's mean luma and chroma, 0 ... 7; one convolution, columns interleaved."""
    scale = (BINS - 1) / 255
    kernel = np.tile(COLOURS[:, None, None, :] * scale / BLOCK**2, (1, 1, BLOCK, BLOCK)).astype(np.float32)
    bias = np.array([0.0, 127.5, 127.5], np.float32) * np.float32(scale)
    image = graph.op("Reshape", "pixels", np.array([-1, 1, HEIGHT, WIDTH_PIXELS * 3]))
    return graph.op("Conv", graph.op("Cast", image, to=FLOAT), kernel, bias, strides=[BLOCK, 3 * BLOCK])


def _colour_change(graph: Graph, blocks: str) -> str:
    """Return `h`, `[W]`."""
    bins = np.arange(BINS, dtype=np.float32)[:, None, None]
    distance = graph.op("Abs", graph.op("Sub", graph.op("Unsqueeze", blocks, np.array([2])), bins))
    member = graph.op("Relu", graph.op("Sub", np.float32(1), distance))  # [2W, 3, 8, 18, 32]
    flat = graph.op("Reshape", member, np.array([0, len(CHANNELS) * BINS, *_grid()]))
    histograms = graph.op("AveragePool", flat, kernel_shape=REGION, strides=REGION)
    first, second = _pair(graph, histograms)
    difference = graph.op("Abs", graph.op("Sub", first, second))  # [W, 24, 3, 4]
    regions = (_grid()[0] // REGION[0]) * (_grid()[1] // REGION[1])
    share = np.repeat(np.array(CHANNELS, np.float32) / (2 * regions), BINS)[:, None, None]
    return graph.op("ReduceSum", graph.op("Mul", difference, share), np.array([1, 2, 3]), keepdims=0)


def _structure_change(graph: Graph, blocks: str) -> str:
    """Return `s`, `[W]`, from 0 to 1; opposite structures count as unrelated ones."""
    luma = graph.op("Slice", blocks, np.array([0]), np.array([1]), np.array([1]))
    around = graph.op("Sub", luma, _mean(graph, luma, keepdims=1))
    first, second = _pair(graph, around)
    covariance = _mean(graph, graph.op("Mul", first, second))
    variances = graph.op("Add", *(_mean(graph, graph.op("Mul", each, each)) for each in (first, second)))
    alike = graph.op(
        "Div",
        *(graph.op("Add", term, np.float32(K)) for term in (graph.op("Mul", covariance, np.float32(2)), variances)),
    )
    return graph.op("Clip", graph.op("Sub", np.float32(1), alike), np.float32(0), np.float32(1))


def _mean(graph: Graph, planes: str, keepdims: int = 0) -> str:
    return graph.op("ReduceMean", planes, axes=[1, 2, 3], keepdims=keepdims)


def _pair(graph: Graph, frames: str) -> tuple[str, str]:
    """Return the first and the second frame of each window."""
    ends = np.array([np.iinfo(np.int64).max])
    first, second = (
        graph.op("Slice", frames, np.array([start]), ends, np.array([0]), np.array([2])) for start in (0, 1)
    )
    return first, second


def _grid() -> tuple[int, int]:
    """Return the number of blocks down and across."""
    return HEIGHT // BLOCK, WIDTH_PIXELS // BLOCK
