"""Counts the arithmetic of a model: what an estimate of its time begins with."""

from collections.abc import Mapping
from math import prod

import onnx
from onnx import shape_inference

_COUNTED = ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "MatMul", "Gemm", "MatMulInteger")


def operations(graph: bytes, sizes: Mapping[str, int]) -> float:
    """Operations of one row: a multiplication and an addition are two; those of products and convolutions alone.

    `sizes` are of named dimensions, others are one. 0: unknown, because the
    shapes of a product cannot be followed.
    """
    try:
        model = onnx.load_from_string(graph)
        for given in model.graph.input:
            for at, dim in enumerate(given.type.tensor_type.shape.dim):
                if not dim.HasField("dim_value"):
                    dim.dim_value = sizes.get(dim.dim_param, 1) if at else 1  # the first one is the batch
        for given in model.graph.output:
            given.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # onnx raises errors of many classes, and an estimate is no reason to end
        return 0.0
    shapes = {each.name: list(each.dims) for each in inferred.initializer}
    for each in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = each.type.tensor_type.shape.dim
        shapes[each.name] = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    counted = [_of_node(node, shapes) for node in inferred.node if node.op_type in _COUNTED]
    return float(sum(counted)) if all(counted) else 0.0


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    first = shapes.get(node.input[0], []) if node.input else []
    second = shapes.get(node.input[1], []) if len(node.input) > 1 else []
    made = shapes.get(node.output[0], []) if node.output else []
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        weights = shapes.get(node.input[3], []) if node.op_type == "QLinearConv" else second
        return 2 * prod(made) * prod(weights[1:]) if made and weights else 0
    if node.op_type == "ConvTranspose":
        return 2 * prod(first) * prod(second[1:]) if first and second else 0
    return 2 * prod(made) * _inner(node, first) if made and first else 0


def _inner(node: onnx.NodeProto, first: list[int]) -> int:
    """The dimension that a product sums over."""
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return first[0] if turned else first[-1]
