"""Changes at the inputs and outputs of ONNX graphs, in every opset from 7 on."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.part import Array
from schemas.errors import ModelError

FRONT = "rigflow_front"  # the names of nodes that rigflow puts in front of a model's own begin so
_STANDARD = ("", "ai.onnx")
_OLDEST = 7  # the first opset that ONNX Runtime takes, and in which Add, Sub, Mul and Div broadcast
_AXES_ARE_INPUTS = 13  # the opset from which on Squeeze and Unsqueeze take them so
_FIRST_IR_WITH_CONSTANTS = 4  # before it, each initializer had to be an input too


class Surgery:
    """A model that is being changed: operations are put in front of its own nodes, or behind them.

    What was put becomes one of the model's own nodes by `apply`. Raises ModelError for what is no ONNX file; `name` is
    for errors.
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
    def inputs(self) -> list[Any]:
        """What the model is fed: its inputs but those that have a value in the file, as weights had in IR 3."""
        constants = {each.name for each in self.graph.initializer}
        constants |= {each.values.name for each in self.graph.sparse_initializer}
        return [each for each in self.graph.input if each.name not in constants]

    def fresh(self, name: str) -> str:
        """A name that nothing in the model has, like `name`."""
        number, free = 0, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def front(self, kind: str, *inputs: str | Array, result: str = "", **attributes: Any) -> str:
        """Put an operation in front of the model's nodes, after what was put there already; the name of its result.

        An input is a name or a constant.
        """
        return self._put(self._first, kind, inputs, result, attributes)

    def behind(self, kind: str, *inputs: str | Array, result: str = "", **attributes: Any) -> str:
        """The same behind the model's nodes."""
        return self._put(self._last, kind, inputs, result, attributes)

    def axes(self, *axes: int) -> tuple[list[Array], dict[str, Any]]:
        """The axes of Squeeze and Unsqueeze, as `(inputs, attributes)`: the opset decides which of them has any."""
        if self._standard_opset() >= _AXES_ARE_INPUTS:
            return [np.array(axes, np.int64)], {}
        return [], {"axes": list(axes)}

    def read_instead(self, old: str, new: str) -> None:
        """Have the model's own nodes make and read `new` where it was `old`, in subgraphs too."""
        _rename(self.graph, old, new)

    def makes(self, name: str) -> bool:
        """Whether a node of the model makes this tensor."""
        return any(name in node.output for node in self.graph.node)

    def add_constant(self, name: str, array: Array) -> None:
        """Have `name` stand for this array, instead of a value in the file if it has one."""
        if name in {each.name for each in self.graph.initializer}:
            _keep(self.graph.initializer, [each for each in self.graph.initializer if each.name != name])
        self.graph.initializer.append(numpy_helper.from_array(array, name))

    def drop_input(self, name: str) -> None:
        """Have the model be fed with this no longer."""
        _keep(self.graph.input, [each for each in self.graph.input if each.name != name])

    def apply(self) -> None:
        """What was put in front and behind are nodes of the model."""
        _keep(self.graph.node, [*self._first, *self.graph.node, *self._last])
        self._first, self._last = [], []

    def finish(self) -> bytes:
        """The changed model's file: equal bytes for equal changes."""
        self.apply()
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
        """The version of ONNX's own operations; a model that has none of them yet gets one."""
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
    """The names of all nodes and tensors, in subgraphs too."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    yield from (each.values.name for each in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in _subgraphs(node):
            yield from _names(inner)


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
    """Names that mean something else inside of a subgraph than outside."""
    given = {value.name for value in (*graph.input, *graph.initializer)}
    return given | {name for node in graph.node for name in node.output}
