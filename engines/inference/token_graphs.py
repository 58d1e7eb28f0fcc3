"""Small graphs that run beside a decoder, on its device: only a few numbers of its logits come to the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LOGITS, CHOSEN, LAST, SOME_SCORES = "logits", "chosen", "last", "scores of some"
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64
_OPSET, _IR = 17, 8


def best_graph(element: int) -> bytes:
    """The most likely continuations of texts that have several rows each.

    Of `logits [rows, T, V]` of that ONNX element type, `forbidden [V]` float32 (0, or minus infinity), `totals [rows]`
    float32 and `shape` = [texts, -1], `best [texts, count]` are the largest totals with one more token, falling, and
    `chosen` int64 their places among the rows of their text: `row * V + token`.
    """
    nodes = [
        _node("Gather", [LOGITS, "last"], "row", axis=1),
        _node("Cast", ["row"], "float", to=_FLOAT),
        _node("Add", ["float", "forbidden"], "allowed"),
        _node("LogSoftmax", ["allowed"], "shares", axis=-1),
        _node("Unsqueeze", ["totals", "one"], "column"),
        _node("Add", ["shares", "column"], "sums"),
        _node("Reshape", ["sums", "shape"], "flat"),
        helper.make_node("TopK", ["flat", "count"], ["best", CHOSEN], axis=-1),
    ]
    inputs = [
        _value(LOGITS, element, 3),
        _value("forbidden", _FLOAT, 1),
        _value("totals", _FLOAT, 1),
        _value("shape", _INT64, 1),
        _value("count", _INT64, 1),
    ]
    constants = [_constant("last", np.array(-1)), _constant("one", np.array([1]))]
    return _model(nodes, inputs, [_value("best", _FLOAT, 2), _value(CHOSEN, _INT64, 2)], constants)


def shares_graph(element: int) -> bytes:
    """The log probabilities of given tokens, among the first `most` [1] of a vocabulary.

    Of `logits [N, T, V]` and `tokens [N, T, K]` int64, `shares [N, T, K]` float32.
    """
    nodes = [
        _node("Slice", [LOGITS, "zero", "most", "two"], "first"),
        _node("Cast", ["first"], "float", to=_FLOAT),
        _node("LogSoftmax", ["float"], "all", axis=-1),
        _node("GatherElements", ["all", "tokens"], "shares", axis=2),
    ]
    inputs = [_value(LOGITS, element, 3), _value("tokens", _INT64, 3), _value("most", _INT64, 1)]
    constants = [_constant("zero", np.array([0])), _constant("two", np.array([2]))]
    return _model(nodes, inputs, [_value("shares", _FLOAT, 3)], constants)


def rows_graph(names: Sequence[str], element: int) -> bytes:
    """Rows of values of four dimensions: of each `name`, `taken.name` has the `rows` [count] int64."""
    nodes = [_node("Gather", [name, "rows"], f"taken.{name}", axis=0) for name in names]
    inputs = [*(_value(name, element, 4) for name in names), _value("rows", _INT64, 1)]
    return _model(nodes, inputs, [_value(f"taken.{name}", element, 4) for name in names], [])


def likeliest_graph(element: int) -> bytes:
    """The likeliest next token of each text.

    Of `logits [rows, T, V]` and `last [rows, 1]` int64, the place of each row's last token, `chosen [rows, 1]` int64.
    """
    nodes = [
        *_last_scores(),
        helper.make_node("TopK", ["scores", "one"], ["best", CHOSEN], axis=-1),
    ]
    inputs = [_value(LOGITS, element, 3), _value(LAST, _INT64, 2)]
    return _model(nodes, inputs, [_value(CHOSEN, _INT64, 2)], [_constant("one", np.array([1]))])


def scores_graph(element: int) -> bytes:
    """The logits of the next token of some texts.

    Of `logits [rows, T, V]`, `last [rows, 1]` int64 as above and `some` [n] int64, numbers of rows, `scores of some`
    [n, V] float32.
    """
    nodes = [*_last_scores(), _node("Gather", ["scores", "some"], SOME_SCORES, axis=0)]
    inputs = [_value(LOGITS, element, 3), _value(LAST, _INT64, 2), _value("some", _INT64, 1)]
    return _model(nodes, inputs, [_value(SOME_SCORES, _FLOAT, 2)], [])


def _last_scores() -> list[Any]:
    return [
        _node("GatherND", [LOGITS, LAST], "own scores", batch_dims=1),
        _node("Cast", ["own scores"], "scores", to=_FLOAT),
    ]


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output], **attributes)


def _value(name: str, element: int, rank: int) -> Any:
    return helper.make_tensor_value_info(name, element, [None] * rank)


def _constant(name: str, array: Any) -> Any:
    return numpy_helper.from_array(array.astype(np.int64), name)


def _model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any]) -> bytes:
    graph = helper.make_graph(nodes, "tokens", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString(deterministic=True))
