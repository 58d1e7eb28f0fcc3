"""Cuts a graph that compares pictures with texts (CLIP, SigLIP as one `model.onnx`) into its two towers.

transformers and optimum export such models as one graph of pictures and texts, with both vectors and their scores as
outputs. rigflow embeds media and texts at different times and places, so each tower becomes a graph of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.inference.trial import HINT
from engines.own_process import in_own_process
from schemas.errors import ModelError

IMAGE, TEXT, SCORES = "image_embeds", "text_embeds", "logits_per_image"  # outputs of the exporters
CUT, SCALE, BIAS = "rigflow_cut", "rigflow_text_scale", "rigflow_text_bias"  # metadata of the graph of pictures
_WIDTH = 8  # of the vectors with which scores are tried, where the graph does not say it


@dataclass(frozen=True, slots=True)
class Towers:
    """The graphs of pictures and of texts; the metadata of the former has `CUT`, and `SCALE` and `BIAS` if found."""

    image: bytes
    text: bytes


def cut(parsed: Any, name: str) -> Towers | None:
    """Return the towers of a parsed model; None if it is another model. `name` is for errors. Raises ModelError."""
    outputs = {each.name for each in parsed.graph.output}
    if not {IMAGE, TEXT} <= outputs:
        return None
    image, text = _subgraph(parsed, [IMAGE]), _subgraph(parsed, [TEXT])
    if {each.name for each in image.graph.input} & {each.name for each in text.graph.input}:
        raise ModelError(f"model `{name}`: its image_embeds depend on its texts", "export the two towers apart")
    found = _scores(parsed, name) if SCORES in outputs else {}
    for key, value in {CUT: name, **{key: repr(value) for key, value in found.items()}}.items():
        image.metadata_props.add(key=key, value=value)
    return Towers(*(bytes(each.SerializeToString(deterministic=True)) for each in (image, text)))


def _scores(parsed: Any, name: str) -> Mapping[str, float]:
    """`SCALE` and `BIAS` of `scale * cosine + bias`, by a trial of the nodes behind the vectors; empty if unknown."""
    behind = _subgraph(parsed, [SCORES], stop=_aliases(parsed.graph, (IMAGE, TEXT)))
    found = {each.name for each in behind.graph.input}
    if found != {IMAGE, TEXT} or len(behind.graph.node) > 20:  # its scores are not made of the two vectors alone
        return {}
    try:
        scale, bias = in_own_process(name, "runs", HINT, _fit, bytes(behind.SerializeToString()), _width(parsed.graph))
    except ModelError:
        return {}
    if not np.isfinite(scale) or not 0 < scale < 1e6:
        return {}
    return {SCALE: scale, **({BIAS: bias} if abs(bias) > 1e-3 else {})}


def _fit(graph: bytes, width: int) -> tuple[float, float]:
    """Scale and bias by which scores follow from cosines, in the least squares of 16 pairs of unit vectors."""
    from engines.inference.onnxruntime import load

    random = np.random.default_rng(7)
    image, text = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in random.normal(size=(2, 4, width)))
    session = load(graph, "scores", once=True)
    feed = {IMAGE: image.astype(np.float32), TEXT: text.astype(np.float32)}
    [scores] = session.run([SCORES], {each.name: feed[each.name] for each in session.get_inputs()})
    cosines = (image @ text.T).reshape(-1)
    (scale, bias), *_ = np.linalg.lstsq(np.stack([cosines, np.ones_like(cosines)], 1), scores.reshape(-1), rcond=None)
    if np.abs(scale * cosines + bias - scores.reshape(-1)).max() > 1e-3 * abs(scale):
        raise ModelError("its scores are no multiple of the cosine")
    return round(float(scale), 5), round(float(bias), 5)


def _width(graph: Any) -> int:
    for output in graph.output:
        if output.name in (IMAGE, TEXT) and output.type.tensor_type.shape.dim:
            return output.type.tensor_type.shape.dim[-1].dim_value or _WIDTH
    return _WIDTH


def _aliases(graph: Any, names: Iterable[str]) -> dict[str, str]:
    """Tensors that are equal to one of `names`, because Identity nodes make these of them."""
    made = {output: node for node in graph.node for output in node.output}
    found = {}
    for name in names:
        found[name] = at = name
        while at in made and made[at].op_type == "Identity":
            found[at := made[at].input[0]] = name
    return found


def _subgraph(parsed: Any, outputs: list[str], stop: Mapping[str, str] | None = None) -> Any:
    """A model of the nodes that `outputs` need; the tensors of `stop` are inputs, by the names that they have there."""
    import onnx

    graph, stop = parsed.graph, stop or {}
    made = {output: number for number, node in enumerate(graph.node) for output in node.output}
    needed: set[int] = set()
    seen: set[str] = set()
    wanted = list(outputs)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in stop and name in made and made[name] not in needed:
            needed.add(made[name])
            wanted += _reads(graph.node[made[name]])
    smaller = onnx.ModelProto()
    for field in ("ir_version", "producer_name", "producer_version", "opset_import", "functions"):
        _copy(smaller, parsed, field)
    smaller.graph.name = graph.name
    smaller.graph.node.extend(graph.node[number] for number in sorted(needed))
    for node in smaller.graph.node:
        node.input[:] = [stop.get(name, name) for name in node.input]
    smaller.graph.initializer.extend(each for each in graph.initializer if each.name in seen)
    smaller.graph.input.extend(each for each in graph.input if each.name in seen)
    for name in sorted({stop[name] for name in seen if name in stop}):
        smaller.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", None]))
    smaller.graph.output.extend(each for each in graph.output if each.name in outputs)
    return smaller


def _copy(target: Any, source: Any, field: str) -> None:
    value = getattr(source, field)
    if isinstance(value, int | str):
        setattr(target, field, value)
    else:
        getattr(target, field).extend(value)


def _reads(node: Any) -> list[str]:
    """Names that a node reads, in its subgraphs too."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names += _reads(inner)
            names += [each.name for each in graph.output]
    return [name for name in names if name]
