"""What code that recognises a form of networks asks of an ONNX graph: its constants, and who reads a value."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from engines.part import Array

OTHER_FORM = (KeyError, IndexError, ValueError, TypeError, ArithmeticError, StopIteration)
"""What reading a stranger's graph raises where it lacks an operation, an attribute or a constant of the form."""


class GraphView:
    """An ONNX graph. Methods raise one of `OTHER_FORM` where it has another form; so do callers, by `demand`."""

    def __init__(self, graph: Any) -> None:
        from onnx import TensorProto, helper

        self.nodes = list(graph.node)  # kept, for their ids are keys
        self._tensors = {each.name: each for each in graph.initializer if each.data_location != TensorProto.EXTERNAL}
        self._attributes = {
            id(node): {each.name: helper.get_attribute_value(each) for each in node.attribute} for node in self.nodes
        }
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        self.makers: dict[str, Any] = {}
        for node in self.nodes:
            self._add(node)

    def _add(self, node: Any) -> None:
        if node.op_type == "Constant" and hasattr(value := self.attributes(node).get("value"), "data_location"):
            self._tensors[node.output[0]] = value
        if node.op_type == "Identity" and node.input[0] in self._tensors:
            self._tensors[node.output[0]] = self._tensors[node.input[0]]
        for name in set(node.input):
            self._readers[name].append(node)
        for name in node.output:
            self.makers[name] = node

    def constant(self, name: str) -> Array:
        """A constant that is in the file itself. Raises KeyError."""
        from onnx import numpy_helper

        made: Array = numpy_helper.to_array(self._tensors[name])
        return made

    def is_constant(self, name: str) -> bool:
        """Whether `constant` gives it."""
        return name in self._tensors

    def attributes(self, node: Any) -> Mapping[str, Any]:
        """The attributes of a node by name."""
        return self._attributes[id(node)]

    def readers(self, value: str) -> list[Any]:
        """The operations that read a value, in the order of the graph."""
        return self._readers[value]

    def reader(self, value: str, *kinds: str) -> Any:
        """The operation that alone reads a value, one of these kinds."""
        [node] = self._readers[value]
        demand(node.op_type in kinds)
        return node

    def after(self, value: str, kind: str, **wanted: Any) -> str:
        """The output of the operation that alone reads a value, of this kind and with these attributes."""
        node = self.reader(value, kind)
        demand(all(self.attributes(node)[key] == each for key, each in wanted.items()))
        return str(node.output[0])


def demand(holds: bool) -> None:
    """Raise ValueError unless the graph is as expected."""
    if not holds:
        raise ValueError("the graph has another form")
