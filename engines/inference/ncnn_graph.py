"""A network for ncnn under construction: its .param, which has the layers, and its .bin, which has their weights.

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure, version of 2026-01. ncnn has no batch: a blob is a
tensor without its first dimension, which is 1.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.part import Array

Shape: TypeAlias = tuple[int, ...]
Params: TypeAlias = Mapping[int, "int | float | Sequence[int]"]
LARGEST = float(np.finfo(np.float32).max)  # its numbers have no infinity
_LIST = -23300  # a parameter that is a list has this minus its number as key
_MOST_DIMENSIONS = 3


class NotForNcnn(Exception):
    """Something in a graph that cannot be written for ncnn; the text says what."""


@dataclass(frozen=True, slots=True)
class Written:
    """A network for ncnn. `inputs` and `outputs`: the blobs of the graph's inputs and outputs, and their shapes."""

    param: str
    weights: bytes
    inputs: Mapping[str, tuple[str, Shape]]
    outputs: Mapping[str, tuple[str, Shape]]


@dataclass(slots=True)
class _Layer:
    """A line of a .param file."""

    kind: str
    takes: list[str]
    gives: list[str]
    params: Params = field(default_factory=dict)

    def line(self, number: int) -> str:
        words = [self.kind, f"l{number}", str(len(self.takes)), str(len(self.gives)), *self.takes, *self.gives]
        return " ".join(words + [_written(key, value) for key, value in self.params.items()])


def _written(key: int, value: "int | float | Sequence[int]") -> str:
    if isinstance(value, int):
        return f"{key}={value}"
    if isinstance(value, float):
        return f"{key}={min(max(value, -LARGEST), LARGEST):.8e}"
    return f"{_LIST - key}={','.join(map(str, (len(value), *value)))}"


class Node:
    """An operation of a graph, with what is known of its tensors."""

    def __init__(self, node: onnx.NodeProto, network: "Network") -> None:
        self.kind, self.inputs, self.outputs = node.op_type, list(node.input), list(node.output)
        self._values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        self._network = network

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        value = self._values.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, number: int) -> bool:
        """Whether an input is given."""
        return number < len(self.inputs) and bool(self.inputs[number])

    def constant(self, number: int) -> Array | None:
        """An input that is a constant; None where it is computed or not given."""
        return self._network.constants.get(self.inputs[number]) if self.has(number) else None

    def shape(self, number: int = 0) -> Shape:
        """The shape of an input that is computed."""
        return self._network.shape(self.inputs[number])

    @property
    def result(self) -> Shape:
        """The shape of the first output."""
        return self._network.shape(self.outputs[0])

    def axis(self, default: int) -> int:
        """The attribute `axis` as ncnn counts it, without the batch. Raises NotForNcnn."""
        axis = int(self.get("axis", default))
        found = (axis if axis >= 0 else axis + len(self.shape()) + 1) - 1
        if found < 0:
            raise self.refused("along the batch")
        return found

    def refused(self, why: str) -> NotForNcnn:
        """An error that names the operation."""
        return NotForNcnn(f"{self.kind} {why}")


Build: TypeAlias = Callable[["Network", Node], None]


class Network:
    """The layers of an ONNX graph whose shapes are all known."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.constants = {each.name: numpy_helper.to_array(each) for each in self._graph.initializer}
        values = [*self._graph.input, *self._graph.value_info, *self._graph.output]
        self._types = {each.name: each.type.tensor_type for each in values}
        self._layers: list[_Layer] = []
        self._weights: list[bytes] = []
        self._blobs: dict[str, str] = {}
        self._count = 0

    def written(self, operations: Mapping[str, Build]) -> Written:
        """The network, each operation written by its entry. Raises NotForNcnn."""
        given = [each.name for each in self._graph.input if each.name not in self.constants]
        for name in given:
            self._blobs[name] = self.layer("Input", [], sizes(self.shape(name)))
        for proto in self._graph.node:
            build = operations.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
            if build is None:
                raise NotForNcnn(f"{proto.op_type} is not among the operations that rigflow writes for it")
            build(self, Node(proto, self))
        inputs = {name: (self._blobs[name], self.shape(name)) for name in given}
        outputs = {each.name: (self.blob(each.name), self.shape(each.name)) for each in self._graph.output}
        layers = self._split({blob for blob, _ in outputs.values()})
        count = sum(len(layer.gives) for layer in layers)
        lines = ["7767517", f"{len(layers)} {count}", *(layer.line(n) for n, layer in enumerate(layers))]
        return Written("\n".join(lines) + "\n", b"".join(self._weights), inputs, outputs)

    def shape(self, name: str) -> Shape:
        """Sizes of a tensor without its first dimension. Raises NotForNcnn."""
        found = self._types.get(name)
        found_sizes = [each.dim_value for each in found.shape.dim] if found is not None else []
        if not found_sizes or min(found_sizes) < 1:
            raise NotForNcnn(f"the size of `{name}` depends on more than the size of the inputs")
        if found_sizes[0] != 1 or not 2 <= len(found_sizes) <= _MOST_DIMENSIONS + 1:
            raise NotForNcnn(f"`{name}` has the shape {found_sizes}, and 1 row of 1 to 3 dimensions is wanted")
        return tuple(found_sizes[1:])

    def blob(self, name: str) -> str:
        """The blob of a tensor. Raises NotForNcnn."""
        if name not in self._blobs:
            raise NotForNcnn(f"`{name}` is a constant where a tensor is wanted")
        return self._blobs[name]

    def layers(self, kind: str, takes: Sequence[str], count: int, params: Params, *weights: bytes) -> list[str]:
        """Append a layer; return the blobs that it makes."""
        made = [self._new() for _ in range(count)]
        self._layers.append(_Layer(kind, list(takes), made, params))
        self._weights += weights
        return made

    def layer(self, kind: str, takes: Sequence[str], params: Params, *weights: bytes) -> str:
        """Append a layer that makes one blob."""
        return self.layers(kind, takes, 1, params, *weights)[0]

    def makes(self, node: Node, *blobs: str) -> None:
        """Say that these blobs are a node's outputs."""
        self._blobs |= dict(zip(node.outputs, blobs, strict=False))

    def _new(self) -> str:
        self._count += 1
        return f"b{self._count}"

    def _split(self, kept: set[str]) -> list[_Layer]:
        """The layers, with a Split behind each blob that is wanted several times: one layer may take a blob, once."""
        takers = Counter(blob for layer in self._layers for blob in layer.takes)
        copies = {
            blob: [self._new() for _ in range(count)] for blob, count in takers.items() if count > 1 or blob in kept
        }
        left = {blob: iter(names) for blob, names in copies.items()}
        found: list[_Layer] = []
        for layer in self._layers:
            takes = [next(left[blob]) if blob in left else blob for blob in layer.takes]
            found.append(_Layer(layer.kind, takes, layer.gives, layer.params))
            found += [_Layer("Split", [blob], copies[blob]) for blob in layer.gives if blob in copies]
        return found


def sizes(shape: Shape) -> dict[int, int]:
    """A shape as parameters: 0 is the width, 1 the height, 2 the channels."""
    return dict(enumerate(reversed(shape)))


def plain(weights: Array) -> bytes:
    """Weights as their bytes. Raises NotForNcnn for other than float32."""
    if weights.dtype != np.float32:
        raise NotForNcnn(f"weights are {weights.dtype}, not float32")
    return np.ascontiguousarray(weights, "<f4").tobytes()


def tagged(weights: Array) -> bytes:
    """Weights behind the tag of float32, as convolutions and products have them."""
    return bytes(4) + plain(weights)
