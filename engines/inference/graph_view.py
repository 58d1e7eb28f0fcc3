"""What code that recognises a form of networks asks of an ONNX graph: its constants, and who reads a value."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from engines.part import Array


class GraphView:
    """An ONNX graph. Methods raise ValueError where the graph has another form; so do callers, by `demand`."""

    def __init__(self, graph: Any) -> None:
        from onnx import helper, numpy_helper

        self.graph = graph
        self.nodes = list(graph.node)  # kept, for their ids are keys
        self.constants: dict[str, Array] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self._attributes = {
            id(node): {each.name: helper.get_attribute_value(each) for each in node.attribute} for node in self.nodes
        }
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        self.makers: dict[str, Any] = {}
        for node in self.nodes:
            self._add(node, numpy_helper)

    def _add(self, node: Any, numpy_helper: Any) -> None:
        if node.op_type == "Constant" and "value" in self.attributes(node):
            self.constants[node.output[0]] = numpy_helper.to_array(self.attributes(node)["value"])
        if node.op_type == "Identity" and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
        for name in set(node.input):
            self._readers[name].append(node)
        for name in node.output:
            self.makers[name] = node

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
