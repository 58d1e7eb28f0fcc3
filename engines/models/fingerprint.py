"""Builds `fingerprint`: one perceptual descriptor a window, to find near-duplicates.

For the luma `x [32, 32]` of each frame of a window:

1. `c = C x C'`, the orthonormal 2-D DCT-II, of which the 8 x 8 lowest frequencies are kept, in grey levels (over 32);
2. `b[u, v] = hypot(u, v) * c[u, v]`: pictures have an amplitude spectrum of about one over the frequency, so this
   gives every frequency an equal say. The mean brightness has weight 0, and its place `b[0, 0]` takes the constant
   `FLOOR`: pictures flatter than that are all alike instead of being compared by their noise;
3. `b / |b|`, so that brightness and contrast do not matter.

The descriptor is the mean over the window's frames, of unit length again. A still picture is a window of equal frames.
"""

import numpy as np

from engines.models.graph import FLOAT, Graph
from engines.part import Array
from schemas.model import ModelSpec, TensorSpec

SIZE = 32
KEPT = 8
FLOOR = 1.0  # grey levels, weighted as in step 2


def cosines() -> Array:
    """Return `[8, 32]` float64: the lowest rows of the orthonormal DCT-II, `sqrt(2 / N) cos(pi u (2 i + 1) / 2 N)`."""
    row, column = np.mgrid[:KEPT, :SIZE]
    matrix = np.sqrt(2 / SIZE) * np.cos(np.pi * row * (2 * column + 1) / (2 * SIZE))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


def weights() -> Array:
    """Return `[8, 8]` float64: the weight of each frequency, and the change of unit to grey levels."""
    return np.asarray(np.hypot(*np.mgrid[:KEPT, :KEPT]) / SIZE)


def blank_windows(descriptors: Array) -> Array:
    """Return `[N]` bool: windows whose frames are blank, with less contrast than `FLOOR`.

    `descriptors [N, 64]` have unit length.
    """
    return np.asarray(descriptors[:, 0] > np.sqrt(0.5))


def build() -> tuple[ModelSpec, bytes]:
    """Return model card and ONNX file."""
    graph = Graph()
    matrix = cosines().astype(np.float32)
    floor = np.zeros(KEPT * KEPT, np.float32)
    floor[0] = FLOOR
    # Two products with a fixed inner shape: no batch size can change the order of the sums.
    rows = graph.op("MatMul", graph.op("Cast", "pixels", to=FLOAT), matrix.T)
    spectrum = graph.op("Reshape", graph.op("MatMul", matrix, rows), np.array([0, 0, KEPT * KEPT]))
    balanced = graph.op("Add", graph.op("Mul", spectrum, weights().astype(np.float32).ravel()), floor)
    mean = graph.op("ReduceMean", _unit(graph, balanced), axes=[1], keepdims=0)
    _unit(graph, mean, result="descriptor")
    return graph.finish(
        ModelSpec(
            name="fingerprint",
            description="perceptual descriptor of a window, for near-duplicate search",
            inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("W", "T", SIZE, SIZE)),),
            outputs=(TensorSpec(name="descriptor", dtype="float32", shape=("W", KEPT * KEPT)),),
            sha256="",
        )
    )


def _unit(graph: Graph, vectors: str, result: str = "") -> str:
    return graph.op("Div", vectors, graph.op("ReduceL2", vectors, axes=[-1], keepdims=1), result=result)
