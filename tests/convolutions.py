"""Networks of 3 x 3 convolutions, which see as many pixels around as they have layers, and what they answer."""

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

from tests.onnx_graphs import FLOAT, model_of, value

Array = np.ndarray[Any, Any]


@cache
def convolutions(count: int, factor: int = 2, channels: int = 3, dtype: int = FLOAT, unshuffle: bool = False) -> bytes:
    """`input [n, C, h, w]` -> `output [n, C, factor h, factor w]`, which sees `count` pixels around.

    `unshuffle`: blocks of 2 x 2 pixels become one before, so that it sees twice as many.
    """
    random, nodes, weights, name, inner = np.random.default_rng(count), [], [], "input", 8
    if unshuffle:
        nodes.append(helper.make_node("SpaceToDepth", [name], ["blocks"], blocksize=2))
        name, factor = "blocks", 2 * factor
    for number in range(count):
        into = (4 if unshuffle else 1) * channels if number == 0 else inner
        out = channels * factor**2 if number == count - 1 else inner
        kernel = random.standard_normal((out, into, 3, 3)).astype("f4") * np.float32((2 / (9 * into)) ** 0.5)
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("LeakyRelu", [f"c{number}"], [f"r{number}"], alpha=0.2))
        name = f"r{number}"
    nodes.append(helper.make_node("DepthToSpace", [name], ["output"], blocksize=factor, mode="CRD"))
    shapes = [value("input", dtype, ["n", channels, "h", "w"])], [value("output", dtype, ["n", channels, "h2", "w2"])]
    return model_of(nodes, *shapes, tuple(weights))


def whole(graph: bytes, picture: Array) -> Array:
    """What plain ONNX Runtime and NumPy make of a whole picture `[H, W(, 3)]`, without anything of the product."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    [answer] = session.run(None, {"input": planes[None].astype("f4") * np.float32(1 / 255)})
    made = np.rint(np.clip(answer[0], 0, 1) * np.float32(255)).astype("u1").transpose(1, 2, 0)
    return made if picture.ndim == 3 else made.repeat(3, axis=2)
