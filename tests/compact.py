"""Networks of the form of Real-ESRGAN's small ones (SRVGGNetCompact), with seeded random weights."""

from functools import cache

import numpy as np
from onnx import helper, numpy_helper

from tests.onnx_graphs import FLOAT, model_of, value

WIDTH = 64


@cache
def compact(
    convolutions: int, height: int | str = "h", width: int | str = "w", seed: int = 0, factor: int = 4
) -> bytes:
    """`input [n, 3, h, w]` -> `output [n, 3, factor h, factor w]`: the picture, repeated, and what was learned."""
    random, nodes, weights, name = np.random.default_rng(seed), [], [], "input"
    ends = [(3, WIDTH), *[(WIDTH, WIDTH)] * convolutions, (WIDTH, 3 * factor**2)]
    for number, (into, out) in enumerate(ends):
        kernel = random.standard_normal((out, into, 3, 3)).astype("f4") * np.float32((1 / (9 * into)) ** 0.5)
        last = number == len(ends) - 1
        weights += [
            numpy_helper.from_array(kernel * np.float32(0.1 if last else 1), f"body.{2 * number}.weight"),
            numpy_helper.from_array(random.standard_normal(out).astype("f4") / 100, f"body.{2 * number}.bias"),
        ]
        inputs = [name, f"body.{2 * number}.weight", f"body.{2 * number}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1] * 4))
        name = f"c{number}"
        if not last:
            slopes = np.full((out, 1, 1), 0.2, "f4")
            weights.append(numpy_helper.from_array(slopes, f"body.{2 * number + 1}.weight"))
            nodes.append(helper.make_node("PRelu", [name, f"body.{2 * number + 1}.weight"], [f"r{number}"]))
            name = f"r{number}"
    nodes.append(helper.make_node("DepthToSpace", [name], ["made"], blocksize=factor, mode="CRD"))
    weights.append(numpy_helper.from_array(np.array([1, 1, factor, factor], "f4"), "scales"))
    resize = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes.append(helper.make_node("Resize", ["input", "", "scales"], ["larger"], **resize))
    nodes.append(helper.make_node("Add", ["made", "larger"], ["output"]))
    sides = [factor * side if isinstance(side, int) else f"o{side}" for side in (height, width)]
    taken = value("input", FLOAT, ["n", 3, height, width])
    return model_of(nodes, [taken], [value("output", FLOAT, ["n", 3, *sides])], tuple(weights))
