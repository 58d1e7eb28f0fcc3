"""Lets a Whisper's decoder give the attention by which words are aligned: exports compute it and keep it to themselves.

The nodes that compute it are found by what they read: keys that come from the states of sound. Of each layer, the heads
that align are an output `rigflow_attention.LAYER`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from engines.inference.whisper_decoder import ATTENTION, SOUND_STATES, WHICH
from engines.models.surgery import Surgery

_OLDEST = 11  # from this opset on, Gather takes places from the end
_GIVEN = "cross_attentions."  # outputs of exports with output_attentions
_PRODUCTS = ("MatMul", "FusedMatMul", "MatMulInteger", "Gemm", "MatMulNBits", "DynamicQuantizeMatMul")
_MOVES = ("Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
_QUANTISES = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear")
_SCALES = ("Add", "Mul", "Div")


def with_attention(body: bytes, heads: Sequence[tuple[int, int]], shape: tuple[int, int], name: str) -> bytes | None:
    """Return a decoder that gives the attention of `heads`, pairs of a layer and a head of it; None where it is fused.

    `shape`: layers, and heads of each. Raises ModelError: `body` is no ONNX file.
    """
    surgery = Surgery(body, name)
    if surgery.opset < _OLDEST:
        return None
    choice = next((node for node in surgery.graph.node if node.op_type == "If" and WHICH in node.input), None)
    branches = {each.name: each.g for each in choice.attribute} if choice else {}
    graph = branches.get("else_branch", surgery.graph)
    layers, count = shape
    found = _given(surgery.graph, graph, choice, layers) or list(_computed(surgery.graph, graph))
    if len(found) != layers:
        return None
    for layer in sorted({layer for layer, _ in heads}):
        taken = [head for of, head in heads if of == layer]
        result = _add_heads(surgery, graph, found[layer], count, taken, f"{ATTENTION}.{layer}" if not choice else "")
        if choice:
            choice.output.append(f"{ATTENTION}.{layer}")
            other = branches["then_branch"]
            empty = numpy_helper.from_array(np.zeros((0, len(taken), 1, 1), np.float32))
            other.node.append(helper.make_node("Constant", [], [unused := surgery.fresh("rigflow_none")], value=empty))
            _add_output(graph, result)
            _add_output(other, unused)
        _add_output(surgery.graph, f"{ATTENTION}.{layer}")
    return surgery.finish()


def _given(model: Any, graph: Any, choice: Any, layers: int) -> list[str]:
    """The attention of each layer in a graph that gives it already; empty where it does not."""
    names = list(choice.output) if choice else [each.name for each in model.output]
    inner = dict(zip(names, (each.name for each in graph.output), strict=False))
    wanted = [f"{_GIVEN}{layer}" for layer in range(layers)]
    return [inner[name] for name in wanted] if all(name in inner for name in wanted) else []


def _computed(model: Any, graph: Any) -> Iterator[str]:
    """The results of the Softmax of each layer whose keys are those of sound, in order; `graph` may be a branch."""
    makers = {name: node for node in (*model.node, *graph.node) for name in node.output}
    for node in graph.node:
        if node.op_type != "Softmax":
            continue
        scores = _reached(makers, node.input[:1], (*_SCALES, *_MOVES, "Where"), _PRODUCTS)
        if any(_from_sound(makers, each) for maker in scores for each in maker.input):
            yield node.output[0]


def _from_sound(makers: dict[str, Any], name: str) -> bool:
    """Whether a value is a projection of the states of sound, moved and scaled."""
    names = [name]
    for allowed in ((*_SCALES, *_MOVES, *_QUANTISES), (*_MOVES, *_QUANTISES)):
        if SOUND_STATES in _walk(makers, names, allowed):
            return True
        names = [each for node in _reached(makers, names, allowed, _PRODUCTS) for each in node.input]
    return False


def _reached(makers: dict[str, Any], names: Sequence[str], through: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """The nearest nodes of the `wanted` kinds that make values, possibly by nodes of the kinds `through`."""
    walked = _walk(makers, names, through)
    found = [makers[name] for name in walked if name in makers and makers[name].op_type in wanted]
    return list({id(node): node for node in found}.values())


def _walk(makers: dict[str, Any], names: Sequence[str], through: Sequence[str]) -> set[str]:
    """Names of values, and of those that they are made of by nodes of the kinds `through`."""
    seen: set[str] = set()
    rest = list(names)
    while rest:
        name = rest.pop()
        if name in seen:
            continue
        seen.add(name)
        maker = makers.get(name)
        if maker is not None and maker.op_type in through:
            # a shape is no value: of a Reshape, only the first input counts
            rest += maker.input[:1] if maker.op_type in _MOVES else maker.input
    return seen


def _add_heads(surgery: Surgery, graph: Any, source: str, count: int, heads: Sequence[int], result: str) -> str:
    """Add nodes that take heads of `source`, `[N, heads, T, states]` or `[N x heads, T, states]`, as float32."""
    names = {each: surgery.fresh(f"rigflow_{each}") for each in ("shape", "last", "whole", "all", "some")}
    constants = {"ends": np.array([-2, -1]), "rows": np.array([-1, count]), "heads": np.array(heads)}
    known = {each: surgery.fresh(f"rigflow_{each}") for each in constants}
    graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.int64), known[each]) for each, array in constants.items()
    )
    result = result or surgery.fresh("rigflow_attention")
    graph.node.extend(
        [
            helper.make_node("Shape", [source], [names["shape"]]),
            helper.make_node("Gather", [names["shape"], known["ends"]], [names["last"]], axis=0),
            helper.make_node("Concat", [known["rows"], names["last"]], [names["whole"]], axis=0),
            helper.make_node("Reshape", [source, names["whole"]], [names["all"]]),
            helper.make_node("Gather", [names["all"], known["heads"]], [names["some"]], axis=1),
            helper.make_node("Cast", [names["some"]], [result], to=TensorProto.FLOAT),
        ]
    )
    return result


def _add_output(graph: Any, name: str) -> None:
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4))
