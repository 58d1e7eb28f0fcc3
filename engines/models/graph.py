"""Writes ONNX graphs: each operation is a call that returns the name of its result."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.part import Array
from schemas.model import ModelSpec, TensorSpec

# old enough for every runtime that still supports a Pascal GPU
OPSET = 17
IR_VERSION = 8

FLOAT = int(TensorProto.FLOAT)
UINT8 = int(TensorProto.UINT8)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: npt.ArrayLike, result: str = "", **attributes: Any) -> str:
        """Append an operation and return the name of its result; an input is a name or a constant."""
        names = [value if isinstance(value, str) else self._constant(np.asarray(value)) for value in inputs]
        result = result or f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def finish(self, card: ModelSpec) -> tuple[ModelSpec, bytes]:
        """Return the model card with its hash, and the model's file: equal bytes for equal graphs."""
        graph = helper.make_graph(self._nodes, card.name, _values(card.inputs), _values(card.outputs), self._constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, producer_name="rigflow", opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        body = model.SerializeToString(deterministic=True)
        return card.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()}), body

    def _constant(self, array: Array) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _values(tensors: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            tensor.name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
        )
        for tensor in tensors
    ]
