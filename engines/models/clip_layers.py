"""Lets the text encoder of a Stable Diffusion 1 or 2 leave out its last layers, which is `clip_skip`.

The graph has all layers, each of which adds to the states of the one before: the states of each are found by these
sums. Behind those of a layer, what stands behind the last layer, a norm, stands a second time, as diffusers and
stable-diffusion-webui have it: with so many layers left out, it gives the output `rigflow_states.LAYERS`.
"""

from collections.abc import Sequence
from typing import Any

from engines.diffusion.prompt import LAST_STATES, MOST_SKIPPED, SKIPPED
from engines.models.surgery import Surgery

_SUMS_OF_A_LAYER = 2  # behind its attention, and behind its two linear ones


def with_skipped_layers(body: bytes, name: str) -> bytes | None:
    """Return a text encoder with an output for each number of layers that may be left out.

    None where layers are not found, as in graphs whose nodes are fused. Raises ModelError: `body` is no ONNX file.
    """
    surgery = Surgery(body, name)
    output = next((each for each in surgery.graph.output if each.name == LAST_STATES), None)
    if output is None:
        return None
    makers = {made: node for node in surgery.graph.node for made in node.output}
    states = _states(surgery.graph, makers)
    if len(states) <= _SUMS_OF_A_LAYER or len(states) % _SUMS_OF_A_LAYER:
        return None
    behind = _between(surgery.graph, states[0])
    for skipped, before in enumerate(states[_SUMS_OF_A_LAYER::_SUMS_OF_A_LAYER][:MOST_SKIPPED], 1):
        renamed = {states[0]: before, LAST_STATES: f"{SKIPPED}.{skipped}"}
        for node in behind:
            copy = surgery.graph.node.add()
            copy.CopyFrom(node)
            copy.name = surgery.fresh(f"rigflow_{node.name or node.op_type}")
            for made in node.output:
                renamed.setdefault(made, surgery.fresh(f"rigflow_{made}"))
            copy.output[:] = [renamed[each] for each in node.output]
            copy.input[:] = [renamed.get(each, each) for each in node.input]
        new = surgery.graph.output.add()
        new.CopyFrom(output)
        new.name = renamed[LAST_STATES]
    return surgery.finish()


def _states(graph: Any, makers: dict[str, Any]) -> Sequence[str]:
    """The sums by which layers change the states, the last one first."""
    wanted = _ancestors(makers, LAST_STATES)
    sums = [node for node in graph.node if node.op_type == "Add" and node.output[0] in wanted]
    last = next((node for node in reversed(sums) if _added_to(makers, node)), None)
    found: list[str] = []
    while last is not None and (before := _added_to(makers, last)):
        found.append(last.output[0])
        last = makers.get(before)
    return found


def _added_to(makers: dict[str, Any], node: Any) -> str:
    """The input of a sum that the other input is made of; "" if there is none."""
    if node.op_type != "Add":
        return ""
    first, second = node.input
    if first in makers and first in _ancestors(makers, second):
        return str(first)
    return str(second) if second in makers and second in _ancestors(makers, first) else ""


def _ancestors(makers: dict[str, Any], name: str) -> set[str]:
    """Names of all values that a value is made of, itself among them."""
    seen: set[str] = set()
    rest = [name]
    while rest:
        if (each := rest.pop()) not in seen:
            seen.add(each)
            rest += makers[each].input if each in makers else ()
    return seen


def _between(graph: Any, first: str) -> list[Any]:
    """The nodes that make the last states of a value, in order."""
    made, found = {first}, []
    for node in graph.node:
        if made & set(node.input) and LAST_STATES not in made:
            found.append(node)
            made |= set(node.output)
    return found
