"""Changes the inputs and outputs of ONNX graphs, in every opset from 7 on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.part import Array
from schemas.errors import ModelError

FRONT = "rigflow_front"  # the prefix of the nodes that rigflow puts in front of a model's own
_STANDARD = ("", "ai.onnx")
_OLDEST = 7  # the first opset that ONNX Runtime accepts, and in which Add, Sub, Mul and Div broadcast
_AXES_ARE_INPUTS = 13  # from this opset on, Squeeze and Unsqueeze take their axes as an input
_FIRST_IR_WITH_CONSTANTS = 4  # before it, each initializer had to be an input too


class Surgery:
    """A model under change: operations are put in front of its own nodes, or behind them.

    `apply` makes them part of the model's own nodes. Raises ModelError if the data is no ONNX file; `name` is for
    errors.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self.name = name
        try:
            self._model = onnx.load_from_string(model)
        except Exception as error:  # protobuf's own error classes differ between its implementations
            raise ModelError(f"model `{name}` is not an ONNX file", "export it again") from error
        self.graph = self._model.graph
        self._taken = set(_names(self.graph))
        self._opset = next((each.version for each in self._model.opset_import if each.domain in _STANDARD), 0)
        self._first: list[Any] = []
        self._last: list[Any] = []

    @property
    def opset(self) -> int:
        """The version of ONNX's own operations; 0 for a model without them."""
        return int(self._opset)

    @property
    def inputs(self) -> list[Any]:
        """The inputs that must be fed: all except those with a value in the file, as weights had in IR 3."""
        constants = {each.name for each in self.graph.initializer}
        constants |= {each.values.name for each in self.graph.sparse_initializer}
        return [each for each in self.graph.input if each.name not in constants]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        return {each.key: each.value for each in self._model.metadata_props}

    def fresh(self, name: str) -> str:
        """Return a name similar to `name` that the model does not use."""
        number, free = 0, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def front(self, kind: str, *inputs: str | Array, result: str = "", **attributes: Any) -> str:
        """Put an operation in front of the model's nodes, after earlier ones; return the name of its result.

        An input is a name or a constant.
        """
        return self._put(self._first, kind, inputs, result, attributes)

    def behind(self, kind: str, *inputs: str | Array, result: str = "", **attributes: Any) -> str:
        """Put an operation behind the model's nodes; return the name of its result."""
        return self._put(self._last, kind, inputs, result, attributes)

    def axes(self, *axes: int, since: int = _AXES_ARE_INPUTS) -> tuple[list[Array], dict[str, Any]]:
        """Return axes as `(inputs, attributes)`, one of which is empty: they are an input `since` some opset, that of
        Squeeze and Unsqueeze by default.
        """
        if self._standard_opset() >= since:
            return [np.array(axes, np.int64)], {}
        return [], {"axes": list(axes)}

    def read_instead(self, old: str, new: str) -> None:
        """Replace `old` by `new` in the model's own nodes, also in subgraphs."""
        _rename(self.graph, old, new)

    def makes(self, name: str) -> bool:
        """Return whether a node of the model makes this tensor."""
        return any(name in node.output for node in self.graph.node)

    def add_constant(self, name: str, array: Array) -> None:
        """Make `name` this array; it replaces a value in the file."""
        if name in {each.name for each in self.graph.initializer}:
            _keep(self.graph.initializer, [each for each in self.graph.initializer if each.name != name])
        self.graph.initializer.append(numpy_helper.from_array(array, name))

    def add_output(self, name: str, shape: Sequence[int | str]) -> None:
        """Make a tensor, of float32, an output of the model."""
        self.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)))

    def drop_input(self, name: str) -> None:
        """Remove an input of the model."""
        _keep(self.graph.input, [each for each in self.graph.input if each.name != name])

    def apply(self) -> None:
        """Make the operations in front and behind nodes of the model."""
        _keep(self.graph.node, [*self._first, *self.graph.node, *self._last])
        self._first, self._last = [], []

    def all_nodes(self) -> Iterator[Any]:
        """Yield the nodes of the graph, of its subgraphs and of the model's functions."""
        yield from _nodes(self.graph)
        for function in self._model.functions:
            yield from _nodes(function)

    def check_opset(self, least: int, what: str) -> None:
        """Raise ModelError if the model, which does `what`, has an older opset."""
        if self._standard_opset() < least:
            raise ModelError(f"model `{self.name}` {what}, and has opset {self._opset}", f"export it with {least}")

    def finish(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """Return the changed model's file, with further metadata: equal bytes for equal changes."""
        self.apply()
        for key, value in (metadata or {}).items():
            self._model.metadata_props.add(key=key, value=value)
        _keep(self.graph.input, self.inputs)  # the others would count as values that may change
        self._model.ir_version = max(self._model.ir_version, _FIRST_IR_WITH_CONSTANTS)
        return bytes(self._model.SerializeToString(deterministic=True))

    def _put(
        self, nodes: list[Any], kind: str, inputs: Sequence[str | Array], result: str, attributes: dict[str, Any]
    ) -> str:
        self._standard_opset()
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        result = result or self.fresh(f"{FRONT}_{kind.lower()}")
        nodes.append(helper.make_node(kind, names, [result], self.fresh(f"{FRONT}_node"), **attributes))
        return result

    def _constant(self, array: Array) -> str:
        name = self.fresh(f"{FRONT}_constant")
        self.add_constant(name, array)
        return name

    def _standard_opset(self) -> int:
        """Return the version of ONNX's own operations; a model without such operations gets one."""
        if not self._opset:
            self._opset = _AXES_ARE_INPUTS
            self._model.opset_import.add(domain="", version=self._opset)
        if self._opset < _OLDEST:
            raise ModelError(f"model `{self.name}` has opset {self._opset}", f"export it with {_OLDEST} or a later one")
        return self._opset


def _keep(field: Any, values: Iterable[Any]) -> None:
    kept = list(values)
    del field[:]
    field.extend(kept)


def _names(graph: Any) -> Iterator[str]:
    """Yield the names of all nodes and tensors, also in subgraphs."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    yield from (each.values.name for each in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in _subgraphs(node):
            yield from _names(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.initializer, *graph.value_info):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        node.input[:] = [new if each == old else each for each in node.input]
        node.output[:] = [new if each == old else each for each in node.output]
        for inner in _subgraphs(node):
            if old not in _own_names(inner):
                _rename(inner, old, new)


def _own_names(graph: Any) -> set[str]:
    """Return the names that have another meaning inside of a subgraph."""
    given = {value.name for value in (*graph.input, *graph.initializer)}
    return given | {name for node in graph.node for name in node.output}
