"""Recognises X3D networks in ONNX graphs (Feichtenhofer, 2020), with their normalisations folded in.

Bytes `[N, T, H, W, 3]`, scaled and shifted; a convolution of 1 x 3 x 3 to some channels and a depthwise one over five
frames; then blocks: a convolution of 1 x 1 x 1 that widens, a depthwise one of 3 x 3 x 3, in some a gate of channels by
their means (squeeze and excitation), x * sigmoid(x), a convolution of 1 x 1 x 1 that narrows, and the sum with the
block's input. What follows the blocks is left to ONNX Runtime.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.inference.graph_view import OTHER_FORM, GraphView, demand
from engines.part import Array

BODY = "rigflow_body"  # the rest's input: `[N, T, H, W, C]` float16
_MOST_CHANNELS, _MOST_NARROW = 1024, 128  # see x3d.cu
_UINT8, _FLOAT = 2, 1  # TensorProto.DataType
_DEPTHWISE = (3, 3, 3), (5, 1, 1)


@dataclass(frozen=True, slots=True)
class Convolution:
    """`weights [out, in of a group, time, height, width]` float32. `stride`: in space. `relu`: after it."""

    weights: Array
    bias: Array
    stride: int
    relu: bool

    @property
    def channels(self) -> int:
        """Of its output."""
        return len(self.weights)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Its sizes in time, height and width."""
        return tuple(self.weights.shape[2:])


@dataclass(frozen=True, slots=True)
class Gate:
    """Factors of channels: two layers of their means, `narrow` and `wide`."""

    narrow: Convolution
    wide: Convolution


@dataclass(frozen=True, slots=True)
class Block:
    """See the module. `shortcut`: of the block's input before the sum, None as it is."""

    expand: Convolution
    depthwise: Convolution
    gate: Gate | None
    project: Convolution
    shortcut: Convolution | None


@dataclass(frozen=True, slots=True)
class X3dNet:
    """An X3D network of `input`; `last`: the convolution that follows the blocks; `rest`: an ONNX file of what follows
    it, which reads `BODY`."""

    scale: float
    shift: float
    first: Convolution
    temporal: Convolution
    blocks: tuple[Block, ...]
    last: Convolution | None
    input: str
    rest: bytes


def x3d_net(model: Any) -> X3dNet | None:
    """The network of a parsed ONNX file, if it has this form; else None."""
    if len(model.graph.input) != 1 or model.graph.input[0].type.tensor_type.elem_type != _UINT8:
        return None
    try:
        return _Reader(model).net()
    except OTHER_FORM:
        return None


class _Reader:
    """Follows a graph from its input to the end of its blocks."""

    def __init__(self, model: Any) -> None:
        self._model, self._view = model, GraphView(model.graph)

    def net(self) -> X3dNet:
        source = self._model.graph.input[0].name
        value, scale, shift = self._front(source)
        first, value = self._convolution(self._view.reader(value, "Conv"))
        temporal, value = self._convolution(self._view.reader(value, "Conv"))
        demand(first.weights.shape[1:] == (3, 1, 3, 3) and not first.relu and not first.bias.any())
        demand(temporal.weights.shape[1:] == (1, 5, 1, 1) and temporal.stride == 1)
        blocks: list[Block] = []
        while found := self._block_at(value):
            block, value = found
            blocks.append(block)
        demand(bool(blocks))
        last, value = self._last(value)
        self._check(first, blocks, last)
        return X3dNet(scale, shift, first, temporal, tuple(blocks), last, source, self._rest(value, source))

    def _front(self, value: str) -> tuple[str, float, float]:
        """The input as floats `[N, 3, T, H, W]`: `bytes * scale + shift`."""
        scale, shift, transposed = 1.0, 0.0, False
        while (node := self._view.reader(value, "Transpose", "Cast", "Mul", "Div", "Add", "Sub", "Conv")) is not None:
            if node.op_type == "Conv":
                break
            if node.op_type == "Transpose":
                demand(not transposed and list(self._view.attributes(node)["perm"]) == [0, 4, 1, 2, 3])
                transposed = True
            elif node.op_type == "Cast":
                demand(self._view.attributes(node)["to"] == _FLOAT)
            else:
                scale, shift = self._moved(node, value, scale, shift)
            value = str(node.output[0])
        demand(transposed)
        return value, scale, shift

    def _moved(self, node: Any, value: str, scale: float, shift: float) -> tuple[float, float]:
        """Scale and shift after one more operation with a number."""
        [constant] = [self._view.constant(name) for name in node.input if name != value]
        [number] = np.unique(constant).tolist()  # the same for all colours
        demand(node.op_type in ("Mul", "Add") or node.input[0] == value)
        if node.op_type in ("Mul", "Div"):
            factor = number if node.op_type == "Mul" else 1 / number
            return scale * factor, shift * factor
        return scale, shift + (number if node.op_type == "Add" else -number)

    def _convolution(self, node: Any) -> tuple[Convolution, str]:
        """A convolution, with the ReLU that alone reads it."""
        given, weights = self._view.attributes(node), self._view.constant(node.input[1])
        kernel = weights.shape[2:]
        strides = list(given.get("strides", [1, 1, 1]))
        demand(node.op_type == "Conv" and weights.dtype == np.float32 and len(kernel) == 3)
        demand(list(given.get("pads", [0] * 6)) == [side // 2 for side in kernel] * 2)
        demand(list(given.get("dilations", [1] * 3)) == [1] * 3 and given.get("auto_pad", b"NOTSET") == b"NOTSET")
        demand(strides[0] == 1 and strides[1] == strides[2])
        groups = given.get("group", 1)
        demand(groups == (len(weights) if kernel in _DEPTHWISE else 1) and (groups == 1 or weights.shape[1] == 1))
        bias = self._view.constant(node.input[2]) if len(node.input) > 2 else np.zeros(len(weights), np.float32)
        value, relu = str(node.output[0]), False
        after = self._view.readers(value)
        if len(after) == 1 and after[0].op_type == "Relu":
            value, relu = str(after[0].output[0]), True
        return Convolution(weights, bias, strides[1], relu), value

    def _block_at(self, value: str) -> tuple[Block, str] | None:
        try:
            return self._block(value)
        except OTHER_FORM:
            return None

    def _block(self, value: str) -> tuple[Block, str]:
        readers = self._view.readers(value)
        demand(len(readers) == 2)
        for node in readers:
            if node.op_type == "Conv" and self._view.readers(node.output[0])[0].op_type == "Relu":
                break
        else:
            raise ValueError("no convolution widens")
        [other] = [each for each in readers if each is not node]
        expand, inner = self._convolution(node)
        depthwise, inner = self._convolution(self._view.reader(inner, "Conv"))
        demand(depthwise.kernel == (3, 3, 3) and not depthwise.relu and depthwise.channels == expand.channels)
        gate, inner = self._gate(inner)
        sigmoid = next(each for each in self._view.readers(inner) if each.op_type == "Sigmoid")
        product = self._view.reader(sigmoid.output[0], "Mul")
        demand(set(product.input) == {inner, sigmoid.output[0]} and len(self._view.readers(inner)) == 2)
        project, inner = self._convolution(self._view.reader(product.output[0], "Conv"))
        shortcut, around = (None, value) if other.op_type == "Add" else self._convolution(other)
        total = self._view.reader(inner, "Add")
        demand(
            set(total.input) == {inner, around} and len(self._view.readers(around)) == (2 if shortcut is None else 1)
        )
        kernels = [each.kernel for each in (expand, project, shortcut) if each is not None]
        demand(set(kernels) == {(1, 1, 1)} and expand.stride == project.stride == 1 and expand.relu)
        demand(not project.relu and (shortcut is None or not shortcut.relu))
        demand(depthwise.stride == (1 if shortcut is None else shortcut.stride) and depthwise.stride in (1, 2))
        return Block(expand, depthwise, gate, project, shortcut), self._view.after(total.output[0], "Relu")

    def _gate(self, value: str) -> tuple[Gate | None, str]:
        """The gate of a value, if it has one, and the value that follows."""
        means = [n for n in self._view.readers(value) if n.op_type in ("ReduceMean", "GlobalAveragePool")]
        if not means:
            return None, value
        [mean] = means
        given = self._view.attributes(mean)
        axes = self._view.constant(mean.input[1]) if len(mean.input) > 1 else given.get("axes", [2, 3, 4])
        demand(sorted(int(axis) % 5 for axis in axes) == [2, 3, 4] and given.get("keepdims", 1) == 1)
        narrow, inner = self._convolution(self._view.reader(mean.output[0], "Conv"))
        wide, inner = self._convolution(self._view.reader(inner, "Conv"))
        demand(narrow.relu and not wide.relu and narrow.kernel == wide.kernel == (1, 1, 1))
        demand(narrow.channels <= _MOST_NARROW)
        factors = self._view.after(inner, "Sigmoid")
        product = self._view.reader(factors, "Mul")
        demand(set(product.input) == {value, factors} and len(self._view.readers(value)) == 2)
        return Gate(narrow, wide), str(product.output[0])

    def _last(self, value: str) -> tuple[Convolution | None, str]:
        readers = self._view.readers(value)
        if len(readers) == 1 and readers[0].op_type == "Conv":
            last, after = self._convolution(readers[0])
            if last.kernel == (1, 1, 1) and last.stride == 1 and last.channels % 8 == 0:
                return last, after
        return None, value

    def _check(self, first: Convolution, blocks: Sequence[Block], last: Convolution | None) -> None:
        most = [first.channels, *(block.expand.channels for block in blocks), *([last.channels] if last else [])]
        demand(max(most) <= _MOST_CHANNELS and (last or blocks[-1].project).channels % 8 == 0)

    def _rest(self, value: str, source: str) -> bytes:
        """The graph behind a value, which it reads as `BODY`."""
        from onnx import TensorProto, helper

        needed, wanted = [], [output.name for output in self._model.graph.output]
        seen: set[str] = {value}
        while wanted:
            name = wanted.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            demand(name != source)
            if (node := self._view.makers.get(name)) is not None:
                needed.append(id(node))
                wanted += node.input
        floats = helper.make_node("Cast", [BODY], [f"{BODY}_floats"], to=TensorProto.FLOAT)
        turned = helper.make_node("Transpose", [f"{BODY}_floats"], [value], perm=[0, 4, 1, 2, 3])
        nodes = [floats, turned, *(node for node in self._view.nodes if id(node) in set(needed))]
        given = helper.make_tensor_value_info(BODY, TensorProto.FLOAT16, ["n", "frames", "height", "width", "channels"])
        kept = [each for each in self._model.graph.initializer if each.name in seen]
        graph = helper.make_graph(nodes, "rest", [given], list(self._model.graph.output), kept)
        opsets = list(self._model.opset_import)
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self._model.ir_version)
        return bytes(made.SerializeToString())
