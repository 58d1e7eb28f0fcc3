"""ONNX graphs as other programs write them: weights outside of the file, constants, subgraphs, functions."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
WEIGHTS = np.arange(256, dtype=np.float32)


def value(name: str, dtype: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: tuple[onnx.TensorProto, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    return bytes(model.SerializeToString())


def outside(location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    onnx.external_data_helper.set_external_data(tensor, location, 0, WEIGHTS.nbytes)
    tensor.ClearField("raw_data")
    return tensor


PIXELS = [value("pixels", UINT8, ["N", 4])]
SCORES = [value("score", FLOAT, ["N", 256])]
BODY = [
    helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
    helper.make_node("ReduceMean", ["f"], ["mean"], axes=[1], keepdims=1),
    helper.make_node("Add", ["mean", "w"], ["score"]),
]


def as_initializer(location: str) -> bytes:
    return model_of(BODY, PIXELS, SCORES, (outside(location),))


def as_constant(location: str) -> bytes:
    return model_of([helper.make_node("Constant", [], ["w"], value=outside(location)), *BODY], PIXELS, SCORES)


def in_subgraph(location: str) -> bytes:
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "b", [], [value("o", FLOAT, [256])])
    branch.initializer.append(outside(location))
    yes = numpy_helper.from_array(np.array(True), "yes")
    choice = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    add = helper.make_node("Add", ["mean", "chosen"], ["score"])
    return model_of([choice, *BODY[:2], add], PIXELS, SCORES, (yes,))


def in_function(location: str) -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=outside(location)),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    function = helper.make_function("own", "Plus", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    plus = helper.make_node("Plus", ["mean"], ["score"], domain="own")
    return model_of([*BODY[:2], plus], PIXELS, SCORES, functions=(function,))


PLACES = [as_initializer, as_constant, in_subgraph, in_function]
