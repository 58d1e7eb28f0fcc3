"""Graphs without a batch: the missing dimension is added to them, so that everything else sees a batch of one row."""

from collections.abc import Iterable
from typing import Any

from schemas.errors import ModelError

_AXES_ARE_INPUTS = 13  # the opset from which on Squeeze and Unsqueeze take them so
_AXES = "rigflow_first_axis"


def with_batch(model: bytes, name: str) -> bytes:
    """The same model with a first dimension of 1 at each input and output whose first dimension is not 1.

    `name` is for errors. Raises ModelError for what is no ONNX file, or gives an input or a constant as its output.
    """
    import onnx
    from onnx import TensorProto, helper

    try:
        changed = onnx.load_from_string(model)
    except Exception as error:  # protobuf's own error classes differ between its implementations
        raise ModelError(f"model `{name}` is not an ONNX file", "export it again") from error
    graph = changed.graph
    opset = next((each.version for each in changed.opset_import if each.domain in ("", "ai.onnx")), _AXES_ARE_INPUTS)
    constants = {each.name for each in graph.initializer}
    made = {each for node in graph.node for each in node.output}

    def reshape(kind: str, source: str, target: str) -> Any:
        if opset < _AXES_ARE_INPUTS:
            return helper.make_node(kind, [source], [target], axes=[0])
        return helper.make_node(kind, [source, _AXES], [target])

    first, last = [], []
    for value in [each for each in graph.input if each.name not in constants and _lacks_batch(each)]:
        _rename(graph.node, value.name, f"{value.name}_row")
        first.append(reshape("Squeeze", value.name, f"{value.name}_row"))
        _add_batch(value)
    for value in [each for each in graph.output if _lacks_batch(each)]:
        if value.name not in made:
            raise ModelError(f"model `{name}`: nothing makes its output `{value.name}`", "leave it out of the export")
        _rename(graph.node, value.name, f"{value.name}_row")
        last.append(reshape("Unsqueeze", f"{value.name}_row", value.name))
        _add_batch(value)
    nodes = [*first, *graph.node, *last]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    if opset >= _AXES_ARE_INPUTS and (first or last):
        graph.initializer.append(helper.make_tensor(_AXES, TensorProto.INT64, [1], [0]))
    return bytes(changed.SerializeToString(deterministic=True))


def _lacks_batch(value: Any) -> bool:
    """Whether a tensor's first dimension is not 1; what is no tensor, or of no known rank, is left as it is."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return False
    return not tensor.shape.dim or tensor.shape.dim[0].dim_value != 1


def _add_batch(value: Any) -> None:
    shape = value.type.tensor_type.shape
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in shape.dim]
    del shape.dim[:]
    shape.dim.add().dim_value = 1
    shape.dim.extend(dims)


def _rename(nodes: Iterable[Any], old: str, new: str) -> None:
    """Give a tensor another name wherever nodes make or read it, in subgraphs too."""
    for node in nodes:
        node.input[:] = [new if each == old else each for each in node.input]
        node.output[:] = [new if each == old else each for each in node.output]
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(graph.node, old, new)
                for output in graph.output:  # a branch may give an outer tensor as it is
                    output.name = new if output.name == old else output.name
