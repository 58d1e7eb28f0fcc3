"""Operations of ONNX as layers of ncnn: what networks of pictures have, and what classifiers end with.

The layers' numbered parameters and weights: https://github.com/Tencent/ncnn/wiki/operation-param-weight-table, version
of 2026-01.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from engines.inference.ncnn_graph import LARGEST, Build, Network, Node, Params, Shape, Written, plain, sizes, tagged
from engines.part import Array

_BINARY = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3, "Max": 4, "Min": 5}
_REVERSED = {"Sub": 7, "Div": 8}  # number - blob, number / blob
_SAME = {"SAME_UPPER": -233, "SAME_LOWER": -234}
_MODES = {"nearest": 1, "linear": 2, "cubic": 3}
_BORDERS = {"constant": 0, "edge": 1, "reflect": 2}
_PERMUTATIONS = {2: [[0, 1], [1, 0]], 3: [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]}


def write(model: ModelProto) -> Written:
    """Return the network of a graph whose shapes are all known, as ONNX Runtime simplifies it. Raises NotForNcnn."""
    return Network(model).written(_OPERATIONS)


def _one(network: Network, node: Node, kind: str, params: Params, *weights: bytes) -> None:
    """A node that is one layer of its first input."""
    network.makes(node, network.layer(kind, [network.blob(node.inputs[0])], params, *weights))


def _convolution(network: Network, node: Node) -> None:
    """Conv, weights `[out, in / group, kh, kw]`; ConvTranspose, weights `[in, out, kh, kw]`."""
    weights, bias, group = node.constant(1), node.constant(2), int(node.get("group", 1))
    if weights is None or weights.ndim != 4 or (bias is None and node.has(2)):
        raise node.refused("in other than two dimensions, or with computed weights")
    params: dict[int, Any] = {}
    kind = "ConvolutionDepthWise" if group > 1 else "Convolution"
    if group > 1:
        params[7] = group
    if node.kind == "ConvTranspose":
        if group > 1 or node.get("auto_pad", "NOTSET") != "NOTSET" or node.get("output_shape", None):
            raise node.refused("with groups, or without pads")
        kind, weights = "Deconvolution", weights.transpose(1, 0, 2, 3)
        params[19], params[18] = node.get("output_padding", (0, 0))
    (down, across), (high, wide) = node.get("strides", (1, 1)), node.get("dilations", (1, 1))
    params |= {0: weights.shape[0], 1: weights.shape[3], 11: weights.shape[2], 3: across, 13: down, 2: wide, 12: high}
    params |= dict(zip((4, 15, 14, 16), _pads(node), strict=True)) | {5: int(bias is not None), 6: weights.size}
    _one(network, node, kind, params, tagged(weights), *([] if bias is None else [plain(bias)]))


def _pads(node: Node) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    auto = node.get("auto_pad", "NOTSET")
    if auto in _SAME:
        return (_SAME[auto],) * 4
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
    return left, right, top, bottom


def _activation(network: Network, node: Node) -> None:
    kinds: Mapping[str, tuple[str, Params]] = {
        "Relu": ("ReLU", {}),
        "LeakyRelu": ("ReLU", {0: float(node.get("alpha", 0.01))}),
        "Sigmoid": ("Sigmoid", {}),
        "Tanh": ("TanH", {}),
        "Elu": ("ELU", {0: float(node.get("alpha", 1.0))}),
        "HardSigmoid": ("HardSigmoid", {0: float(node.get("alpha", 0.2)), 1: float(node.get("beta", 0.5))}),
        "HardSwish": ("HardSwish", {0: 1 / 6, 1: 0.5}),
    }
    _one(network, node, *kinds[node.kind])


def _clip(network: Network, node: Node) -> None:
    """Clip, whose limits are inputs or (before opset 11) attributes."""
    limits = []
    for number, name, default in ((1, "min", -LARGEST), (2, "max", LARGEST)):
        limit = node.constant(number)
        if limit is None and node.has(number):
            raise node.refused("to computed limits")
        limits.append(float(node.get(name, default) if limit is None else limit))
    _one(network, node, "Clip", dict(enumerate(limits)))


def _prelu(network: Network, node: Node) -> None:
    slopes, channels = node.constant(1), node.shape()[0]
    per_channel = slopes is not None and slopes.shape[-3:] == (channels, *(1,) * (len(node.shape()) - 1))
    if slopes is None or not (slopes.size == 1 or per_channel):
        raise node.refused("with other than a slope for each channel")
    _one(network, node, "PReLU", {0: slopes.size}, plain(slopes))


def _binary(network: Network, node: Node) -> None:
    """Arithmetic of two tensors, or of one and numbers."""
    if len(node.inputs) != 2:
        raise node.refused(f"of {len(node.inputs)} tensors")
    blobs = []
    for at in (0, 1):
        numbers = node.constant(at)
        if numbers is not None and numbers.size == 1:
            kind = _BINARY[node.kind] if at else _REVERSED.get(node.kind, _BINARY[node.kind])
            blob = network.blob(node.inputs[1 - at])
            number = float(numbers.reshape(()))
            network.makes(node, network.layer("BinaryOp", [blob], {0: kind, 1: 1, 2: number}))
            return
        shape = node.shape(at) if numbers is None else _row(node, numbers)
        if len(shape) != len(node.result):
            raise node.refused("of tensors of different ranks")
        made = network.layer("MemoryData", [], sizes(shape), plain(numbers)) if numbers is not None else ""
        blobs.append(made or network.blob(node.inputs[at]))
    network.makes(node, network.layer("BinaryOp", blobs, {0: _BINARY[node.kind]}))


def _row(node: Node, numbers: Array) -> Shape:
    """The shape of a constant beside the result's, without the batch."""
    return ((1,) * (len(node.result) + 1 - numbers.ndim) + numbers.shape)[1:]


def _concat(network: Network, node: Node) -> None:
    blobs = [network.blob(each) for each in node.inputs]
    network.makes(node, network.layer("Concat", blobs, {0: node.axis(1)}))


def _split(network: Network, node: Node) -> None:
    axis = node.axis(0)
    parts = [network.shape(each)[axis] for each in node.outputs]
    network.makes(node, *network.layers("Slice", [network.blob(node.inputs[0])], len(parts), {0: parts, 1: axis}))


def _gather(network: Network, node: Node) -> None:
    """Gather that puts the channels into another order."""
    order, axis = node.constant(1), node.axis(0)
    if order is None or sorted(order.ravel().tolist()) != list(range(node.shape()[axis])):
        raise node.refused("of other than channels in another order")
    found = network.layers("Slice", [network.blob(node.inputs[0])], order.size, {0: [1] * order.size, 1: axis})
    network.makes(node, network.layer("Concat", [found[each] for each in order.ravel()], {0: axis}))


def _resize(network: Network, node: Node) -> None:
    """Resize and Upsample of pictures, by factors or to a size."""
    mode, how = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    (channels, *source), (made, *size) = node.shape(), node.result
    whole = all(to % side == 0 for to, side in zip(size, source, strict=True))
    if channels != made or len(size) != 2 or node.get("antialias", 0) or (mode == "nearest" and not whole):
        raise node.refused(f"{mode} of {node.shape()} to {node.result}")
    _one(network, node, "Interp", {0: _MODES[mode], 3: size[0], 4: size[1], 6: int(how == "align_corners")})


def _pool(network: Network, node: Node) -> None:
    """MaxPool, AveragePool."""
    kernel, rounds_up = node.get("kernel_shape", ()), node.get("ceil_mode", 0)
    if len(kernel) != 2 or rounds_up or len(node.outputs) > 1 or max(node.get("dilations", [1])) > 1:
        raise node.refused("in other than two dimensions, with sizes rounded up, or dilations")
    down, across = node.get("strides", (1, 1))
    left, right, top, bottom = _pads(node)
    if left < 0:
        raise node.refused("that pads by itself")
    params = {0: int(node.kind == "AveragePool"), 1: kernel[1], 11: kernel[0], 2: across, 12: down, 5: 1}
    _one(
        network,
        node,
        "Pooling",
        params | {3: left, 14: right, 13: top, 15: bottom, 6: node.get("count_include_pad", 0)},
    )


def _mean(network: Network, node: Node) -> None:
    """GlobalAveragePool, and ReduceMean of whole planes."""
    axes = node.constant(1) if node.has(1) else node.get("axes", (2, 3))
    if len(node.shape()) != 3 or axes is None or sorted(int(each) % 4 for each in axes) != [2, 3]:
        raise node.refused("of other than whole planes")
    pooled = network.layer("Pooling", [network.blob(node.inputs[0])], {0: 1, 4: 1})
    network.makes(node, network.layer("Reshape", [pooled], sizes(node.result)))


def _reshape(network: Network, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: to the shape that the result has."""
    _one(network, node, "Reshape", sizes(node.result))


def _transpose(network: Network, node: Node) -> None:
    first, *order = (each - 1 for each in node.get("perm", (0,)))
    known = _PERMUTATIONS.get(len(order), [])
    if first != -1 or order not in known:
        raise node.refused("of the batch, or of one dimension")
    _one(network, node, "Permute", {0: known.index(order)})


def _product(network: Network, node: Node) -> None:
    """Gemm and MatMul of rows with a constant matrix."""
    matrix, bias = node.constant(1), node.constant(2)
    scaled = node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1 or node.get("transA", 0)
    if matrix is None or matrix.ndim != 2 or scaled or len(node.shape()) > 2:
        raise node.refused("of other than rows and a constant matrix")
    matrix = matrix if node.get("transB", 0) else matrix.T
    if node.has(2) and (bias is None or bias.size != len(matrix)):
        raise node.refused("with other than a number added to each column")
    params = {0: len(matrix), 1: int(bias is not None), 2: matrix.size}
    _one(network, node, "InnerProduct", params, tagged(matrix), *([] if bias is None else [plain(bias)]))


def _softmax(network: Network, node: Node) -> None:
    _one(network, node, "Softmax", {0: node.axis(-1), 1: 1})


def _pad(network: Network, node: Node) -> None:
    pads, number = node.constant(1), node.constant(2)
    pads = np.asarray(node.get("pads", ())) if pads is None else pads
    border = _BORDERS.get(node.get("mode", "constant"), -1)
    if len(pads) != 8 or pads[[0, 1, 4, 5]].any() or pads.min() < 0 or node.has(3) or border < 0:
        raise node.refused("of other than planes")
    top, left, bottom, right = (int(pads[each]) for each in (2, 3, 6, 7))
    fill = 0.0 if number is None else float(number.reshape(()))
    _one(network, node, "Padding", {0: top, 1: bottom, 2: left, 3: right, 4: border, 5: fill})


def _depth_to_space(network: Network, node: Node) -> None:
    """DepthToSpace, in PyTorch's order or in TensorFlow's."""
    _one(network, node, "PixelShuffle", {0: node.get("blocksize", 1), 1: int(node.get("mode", "DCR") == "DCR")})


def _space_to_depth(network: Network, node: Node) -> None:
    """SpaceToDepth, which has TensorFlow's order."""
    _one(network, node, "Reorg", {0: node.get("blocksize", 1), 1: 1})


def _cast(network: Network, node: Node) -> None:
    """Cast of a picture's bytes, which arrive as float32."""
    if node.get("to", 0) != TensorProto.FLOAT:
        raise node.refused("to other than float32")
    network.makes(node, network.blob(node.inputs[0]))


_OPERATIONS: Mapping[str, Build] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSigmoid", "HardSwish"), _activation),
    "Clip": _clip,
    "PRelu": _prelu,
    **dict.fromkeys(_BINARY, _binary),
    "Concat": _concat,
    "Split": _split,
    "Gather": _gather,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _mean),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    "Softmax": _softmax,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Cast": _cast,
}
