"""Recognises compact upscalers in ONNX graphs: convolutions of 3 x 3 one after the other, then pixels from channels.

Real-ESRGAN's SRVGGNetCompact has this form (realesr-animevideov3, realesr-general-x4v3): a convolution from three to 64
channels, some from 64 to 64, each with an activation, one to `3 * factor * factor`, DepthToSpace, and the picture
itself, enlarged by nearest neighbours, is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.inference.graph_view import OTHER_FORM, GraphView, demand
from engines.part import Array

CHANNELS = 64
_ACTIVATIONS = ("PRelu", "LeakyRelu", "Relu")
_PLAIN: Mapping[str, Any] = {
    "kernel_shape": [3, 3],
    "pads": [1] * 4,
    "strides": [1, 1],
    "dilations": [1, 1],
    "group": 1,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution, `weights [out, in, 3, 3]` float32. `slope`: of values below zero, 1 without an activation."""

    weights: Array
    bias: Array
    slope: Array


@dataclass(frozen=True, slots=True)
class CompactNet:
    """A compact upscaler of bytes `[N, H, W, 3]`, which are multiplied by `scale` first."""

    layers: tuple[Layer, ...]
    factor: int
    scale: float
    adds_picture: bool
    input: str
    output: str


def compact_net(model: Any) -> CompactNet | None:
    """The network of a parsed ONNX file, if it has this form; else None."""
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        return None
    try:
        return _Reader(graph).net()
    except OTHER_FORM:
        return None


class _Reader:
    """Follows a graph from its input to its output."""

    def __init__(self, graph: Any) -> None:
        self._view = GraphView(graph)
        self._graph = graph

    def net(self) -> CompactNet:
        source = self._graph.input[0].name
        transposed = self._view.after(source, "Transpose", perm=[0, 3, 1, 2])
        scaled = self._view.after(self._view.after(transposed, "Cast", to=1), "Mul")
        [node] = self._view.readers(self._view.readers(transposed)[0].output[0])
        scale = next(self._view.constant(name) for name in node.input if self._view.is_constant(name))
        layers, value = self._layers(scaled)
        factor = int(np.sqrt(len(layers[-1].bias) // 3))
        demand(len(layers[-1].bias) == 3 * factor * factor and 1 <= factor <= 4)
        made = self._view.after(value, "DepthToSpace", blocksize=factor, mode=b"CRD")
        output = self._graph.output[0].name
        adds = made != output
        if adds:
            self._check_sum(scaled, made, factor, output)
        return CompactNet(tuple(layers), factor, float(scale.reshape(())), adds, source, output)

    def _layers(self, value: str) -> tuple[list[Layer], str]:
        layers: list[Layer] = []
        while True:
            node = next(each for each in self._view.readers(value) if each.op_type == "Conv")
            given = self._view.attributes(node)
            demand(all(list(np.atleast_1d(given.get(k, v))) == list(np.atleast_1d(v)) for k, v in _PLAIN.items()))
            weights = self._view.constant(node.input[1])
            bias = self._view.constant(node.input[2]) if len(node.input) > 2 else np.zeros(len(weights), np.float32)
            demand(weights.dtype == np.float32 and weights.shape[1:] == (CHANNELS if layers else 3, 3, 3))
            [value] = node.output
            [after] = self._view.readers(value)
            if after.op_type not in _ACTIVATIONS:
                layers.append(Layer(weights, bias, np.ones(len(weights), np.float32)))
                demand(len(layers) >= 2)
                return layers, value
            demand(len(weights) == CHANNELS)
            layers.append(Layer(weights, bias, self._slope(after)))
            [value] = after.output

    def _slope(self, node: Any) -> Array:
        if node.op_type == "PRelu":
            slope: Array = self._view.constant(node.input[1]).astype(np.float32)
            return np.ascontiguousarray(np.broadcast_to(slope.reshape(-1), CHANNELS))
        leak = self._view.attributes(node).get("alpha", 0.01) if node.op_type == "LeakyRelu" else 0.0
        return np.full(CHANNELS, leak, np.float32)

    def _check_sum(self, scaled: str, made: str, factor: int, output: str) -> None:
        resize = next(each for each in self._view.readers(scaled) if each.op_type == "Resize")
        given = self._view.attributes(resize)
        wanted = {"mode": b"nearest", "nearest_mode": b"floor", "coordinate_transformation_mode": b"asymmetric"}
        demand({key: given.get(key) for key in wanted} == wanted)
        demand(list(self._view.constant(resize.input[2])) == [1, 1, factor, factor])
        [node] = self._view.readers(made)
        demand(node.op_type == "Add" and set(node.input) == {made, resize.output[0]} and node.output[0] == output)
