"""Converts ncnn's .param and .bin of networks of pictures (for example ESRGAN, Real-ESRGAN) to an ONNX file.

The layers' numbered parameters and weights: https://github.com/Tencent/ncnn/wiki/operation-param-weight-table, version
of 2026-01.
"""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engines.models.graph import Graph
from engines.models.ncnn_files import CONVERT_HINT, Layer, Weights, read_layers
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

_INTERPOLATIONS = {1: "nearest", 2: "linear", 3: "cubic"}
_OPERATIONS = {0: "Add", 1: "Sub", 2: "Mul", 3: "Div", 4: "Max", 5: "Min"}  # of BinaryOp


def convert(param: Path, weights: Path) -> bytes:
    """Return the ONNX file of a network: `input [n, C, h, w]` -> `output [n, C', h', w']`, float32, opset 17.

    Raises ModelError: a file cannot be read, or a layer is of a kind that such networks do not have.
    """
    try:
        text, body = param.read_bytes(), weights.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read {error.filename}: {error.strerror}", "a network has both .param and .bin"
        ) from error
    return _Network(param, list(read_layers(text, param)), Weights(body, weights)).onnx()


class _Network:
    """A graph under construction: ncnn's blobs as results of ONNX operations, with their channels."""

    def __init__(self, path: Path, layers: list[Layer], weights: Weights) -> None:
        self._path, self._layers, self._weights = path, layers, weights
        self._graph = Graph()
        self._blobs: dict[str, str] = {}
        self._channels: dict[str, int] = {}
        self._input_channels = 0

    def onnx(self) -> bytes:
        """Return the finished file."""
        for layer in self._layers:
            build = _BUILD.get(layer.kind)
            if build is None:
                raise ModelError(
                    f"{self._path} has a layer {layer.kind}, which no ESRGAN-like network has", CONVERT_HINT
                )
            if missing := [each for each in layer.inputs if each not in self._blobs]:
                raise ModelError(f"{self._path}: nothing makes {missing[0]} before layer {layer.name}", CONVERT_HINT)
            if layer.kind in _OF_ONE and len(layer.inputs) != 1:
                raise ModelError(f"{self._path}: layer {layer.name} has {len(layer.inputs)} inputs", CONVERT_HINT)
            build(self, layer)
        self._weights.check_all_read()
        read = {blob for layer in self._layers for blob in layer.inputs}
        last = [blob for layer in self._layers for blob in layer.outputs if blob not in read]
        if len(last) != 1 or not self._input_channels:
            raise ModelError(f"{self._path} has {len(last)} outputs, and one is wanted", CONVERT_HINT)
        channels = self._channels[last[0]]
        self._graph.op("Identity", self._blobs[last[0]], result="output")
        spec = ModelSpec(
            name=_MODEL,
            inputs=(TensorSpec(name="input", dtype="float32", shape=("n", self._input_channels, "h", "w")),),
            outputs=(TensorSpec(name="output", dtype="float32", shape=("n", channels, "oh", "ow")),),
            sha256="",
        )
        return self._graph.finish(spec)[1]

    def start(self, layer: Layer) -> None:
        """Input: a picture, with the channels of the first convolution."""
        if self._input_channels:
            raise ModelError(f"{self._path} has two inputs, and one is wanted", CONVERT_HINT)
        first = next((each for each in self._layers if each.kind == "Convolution"), None)
        sides = max(1, first.integer(1)) * max(1, first.integer(11, first.integer(1))) if first else 1
        self._input_channels = first.integer(6) // (max(1, first.integer(0)) * sides) if first else 3
        self._blobs[layer.outputs[0]], self._channels[layer.outputs[0]] = "input", self._input_channels

    def same(self, layer: Layer) -> None:
        """Split, Noop: the blob under further names."""
        for name in layer.outputs:
            self._blobs[name], self._channels[name] = self._blobs[layer.inputs[0]], self._channels[layer.inputs[0]]

    def convolution(self, layer: Layer) -> None:
        """Convolution, ConvolutionDepthWise: weights `[out, in / groups, kh, kw]`, then the bias."""
        out, groups = layer.integer(0), max(1, layer.integer(7, 1)) if layer.kind != "Convolution" else 1
        width, stride, dilation = layer.integer(1), layer.integer(3, 1), layer.integer(2, 1)
        height = layer.integer(11, width)
        left = layer.integer(4)
        top = layer.integer(14, left)
        pads = [top, left, layer.integer(16, top), layer.integer(15, left)]
        count = layer.integer(6)
        if layer.integer(8) or min(pads) < 0 or out < 1 or count % max(1, out * width * height):
            raise ModelError(f"{self._path}: layer {layer.name} has int8 weights, or pads by itself", CONVERT_HINT)
        shape = (out, count // (out * width * height), height, width)
        given = [self._weights.tagged(prod(shape)).reshape(shape)]
        given += [self._weights.plain(out)] if layer.integer(5) else []
        made = self._graph.op(
            "Conv",
            self._blobs[layer.inputs[0]],
            *given,
            kernel_shape=[height, width],
            pads=pads,
            group=groups,
            strides=[layer.integer(13, stride), stride],
            dilations=[layer.integer(12, dilation), dilation],
        )
        self._set(layer, self._activated(layer, made), out)

    def activation(self, layer: Layer) -> None:
        """Sigmoid, TanH, ReLU with a slope."""
        blob = self._blobs[layer.inputs[0]]
        if layer.kind == "ReLU" and layer.number(0):
            made = self._graph.op("LeakyRelu", blob, alpha=layer.number(0))
        else:
            made = self._graph.op({"Sigmoid": "Sigmoid", "TanH": "Tanh", "ReLU": "Relu"}[layer.kind], blob)
        self._set(layer, made)

    def swish(self, layer: Layer) -> None:
        """Swish: `x * sigmoid(x)`."""
        blob = self._blobs[layer.inputs[0]]
        self._set(layer, self._graph.op("Mul", blob, self._graph.op("Sigmoid", blob)))

    def clip(self, layer: Layer) -> None:
        """Clip to parameter 0 ... parameter 1."""
        limits = [np.float32(layer.number(key)) for key in (0, 1)]
        self._set(layer, self._graph.op("Clip", self._blobs[layer.inputs[0]], *limits))

    def prelu(self, layer: Layer) -> None:
        """PReLU: a slope for each channel, without a tag."""
        slopes = self._weights.plain(layer.integer(0)).reshape(-1, 1, 1)
        self._set(layer, self._graph.op("PRelu", self._blobs[layer.inputs[0]], slopes))

    def shuffle(self, layer: Layer) -> None:
        """PixelShuffle: channels become pixels, in PyTorch's order or (1) TensorFlow's."""
        factor, mode = layer.integer(0, 1), "DCR" if layer.integer(1) else "CRD"
        blob = self._blobs[layer.inputs[0]]
        channels = self._channels[layer.inputs[0]] // factor**2
        self._set(layer, self._graph.op("DepthToSpace", blob, blocksize=factor, mode=mode), channels)

    def resize(self, layer: Layer) -> None:
        """Interp by factors: nearest repeats pixels, linear and cubic use pixel centres."""
        mode = _INTERPOLATIONS.get(layer.integer(0), "")
        scales = np.array([1, 1, layer.number(1, 1), layer.number(2, 1)], np.float32)
        if not mode or layer.integer(3) or layer.integer(4) or min(scales) <= 0:
            raise ModelError(f"{self._path}: layer {layer.name} resizes to a fixed size", CONVERT_HINT)
        centres = "align_corners" if layer.integer(6) else "half_pixel"
        nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        how: dict[str, Any] = nearest if mode == "nearest" else {"coordinate_transformation_mode": centres}
        if mode == "cubic":
            how = {**how, "cubic_coeff_a": -0.75}
        self._set(layer, self._graph.op("Resize", self._blobs[layer.inputs[0]], "", scales, mode=mode, **how))

    def binary(self, layer: Layer) -> None:
        """BinaryOp of two blobs, or of one and (1) the number 2."""
        operation = _OPERATIONS.get(layer.integer(0), "")
        wanted = 1 if layer.integer(1) else 2
        if not operation or len(layer.inputs) != wanted:
            raise ModelError(f"{self._path}: layer {layer.name} is operation {layer.integer(0)}", CONVERT_HINT)
        blobs = [self._blobs[each] for each in layer.inputs]
        other = [np.float32(layer.number(2))] if layer.integer(1) else []
        self._set(layer, self._graph.op(operation, *blobs, *other))

    def eltwise(self, layer: Layer) -> None:
        """Eltwise: a product, a sum with factors, or the largest."""
        kind, factors = layer.integer(0), layer.numbers(1)
        blobs = [self._blobs[each] for each in layer.inputs]
        if kind == 1:
            scaled = zip(blobs, factors or [1.0] * len(blobs), strict=False)
            blobs = [blob if by == 1 else self._graph.op("Mul", blob, np.float32(by)) for blob, by in scaled]
        made = blobs[0]
        for blob in blobs[1:]:
            made = self._graph.op({0: "Mul", 1: "Add", 2: "Max"}.get(kind, "Add"), made, blob)
        self._set(layer, made)

    def concat(self, layer: Layer) -> None:
        """Concat along the channels; ncnn's axes have no batch."""
        if layer.integer(0):
            raise ModelError(f"{self._path}: layer {layer.name} joins along axis {layer.integer(0)}", CONVERT_HINT)
        made = self._graph.op("Concat", *(self._blobs[each] for each in layer.inputs), axis=1)
        self._set(layer, made, sum(self._channels[each] for each in layer.inputs))

    def _activated(self, layer: Layer, made: str) -> str:
        """The activation that ncnn's tools fuse into a convolution: parameter 9, with its numbers in 10."""
        kind, numbers = layer.integer(9), layer.numbers(10)
        if kind == 0:
            return made
        if kind == 1:
            return self._graph.op("Relu", made)
        if kind == 2 and len(numbers) == 1:
            return self._graph.op("LeakyRelu", made, alpha=numbers[0])
        if kind == 3 and len(numbers) == 2:
            return self._graph.op("Clip", made, *map(np.float32, numbers))
        if kind == 4:
            return self._graph.op("Sigmoid", made)
        raise ModelError(f"{self._path}: layer {layer.name} has activation {kind}", CONVERT_HINT)

    def _set(self, layer: Layer, made: str, channels: int | None = None) -> None:
        if len(layer.outputs) != 1:
            raise ModelError(f"{self._path}: layer {layer.name} has {len(layer.outputs)} outputs", CONVERT_HINT)
        self._blobs[layer.outputs[0]] = made
        self._channels[layer.outputs[0]] = self._channels[layer.inputs[0]] if channels is None else channels


_MODEL = "ncnn"  # what the graph is called

_BUILD: Mapping[str, Callable[[_Network, Layer], None]] = {
    "Input": _Network.start,
    "Split": _Network.same,
    "Noop": _Network.same,
    "Dropout": _Network.same,
    "Convolution": _Network.convolution,
    "ConvolutionDepthWise": _Network.convolution,
    "ReLU": _Network.activation,
    "Sigmoid": _Network.activation,
    "TanH": _Network.activation,
    "Swish": _Network.swish,
    "Clip": _Network.clip,
    "PReLU": _Network.prelu,
    "PixelShuffle": _Network.shuffle,
    "Interp": _Network.resize,
    "BinaryOp": _Network.binary,
    "Eltwise": _Network.eltwise,
    "Concat": _Network.concat,
}

_OF_ONE = _BUILD.keys() - {"Input", "BinaryOp", "Eltwise", "Concat"}
