"""Networks with random weights, for trials where nobody has brought real ones."""

import numpy as np

from engines.models.graph import FLOAT, Graph
from engines.models.x3d import FRAMES, MEAN, SIDE, STD
from schemas.pipeline import ModelSpec, TensorSpec


def small_x3d() -> tuple[ModelSpec, bytes]:
    """A stem, depthwise 3-D convolutions with a gate, and pooling, as in X3D; 1/1000 of its work, random weights."""
    dice = np.random.default_rng(3)
    graph = Graph()

    def convolve(
        clip: str, outputs: int, inputs: int, kernel: tuple[int, int, int], stride: int, group: int = 1
    ) -> str:
        weights = dice.normal(size=(outputs, inputs // group, *kernel)) / np.sqrt(inputs // group * np.prod(kernel))
        pads = [side // 2 for side in kernel] * 2
        strides = [1, stride, stride]
        return graph.op("Conv", clip, weights.astype(np.float32), pads=pads, strides=strides, group=group)

    floats = graph.op("Mul", graph.op("Cast", "pixels", to=FLOAT), np.float32(1 / (255 * STD)))
    clip = graph.op("Transpose", graph.op("Sub", floats, np.float32(MEAN / STD)), perm=[0, 4, 1, 2, 3])
    clip = convolve(convolve(clip, 8, 3, (1, 3, 3), 8), 8, 8, (5, 1, 1), 1, group=8)
    clip = convolve(graph.op("Relu", clip), 16, 8, (1, 1, 1), 1)
    clip = convolve(clip, 16, 16, (3, 3, 3), 2, group=16)
    clip = graph.op("Mul", clip, graph.op("Sigmoid", graph.op("GlobalAveragePool", clip)))
    clip = graph.op("Relu", convolve(clip, 64, 16, (1, 1, 1), 1))
    graph.op("Flatten", graph.op("GlobalAveragePool", clip), result="features")
    return graph.finish(
        ModelSpec(
            name="x3d_s",
            version="small",
            inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", FRAMES, SIDE, SIDE, 3)),),
            outputs=(TensorSpec(name="features", dtype="float32", shape=("N", 64)),),
            sha256="",
        )
    )
