"""Mixes two networks of one form number by number, as Real-ESRGAN's denoise strength does.

Source: xinntao/Real-ESRGAN, inference_realesrgan.py and realesrgan/utils.py, `dni`: strength times the weights of the
network that denoises, and the rest of those of the one that does not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.content import Content, graph_of
from engines.inference import trial
from engines.models.files import NewFiles
from engines.models.folders import Taken
from engines.models.shipped_cards import ShippedCard, card_by_name
from engines.models.store import Found, find
from engines.own_process import in_own_process
from schemas.errors import ModelError, UsageError

_SAME = "give two files of one kind, as their authors publish them"


def denoised(found: Found, strength: float, new: NewFiles) -> tuple[Found, dict[str, str]]:
    """Return a network mixed for a denoise strength, and the fields of its card that say so.

    Raises as `partner_of`, `find` and `mixed` do.
    """
    card, other = partner_of(found.path, strength)
    body = mixed(found.content, find(other, new).content, strength, found.path)
    about = f"{card.description}, denoise strength {strength:g}; licence {card.licence}; {card.page}"
    return replace(found, taken=Taken(body)), {"name": f"{card.name}-denoise-{strength:g}", "description": about}


def partner_of(path: Path, strength: float) -> tuple[ShippedCard, Path]:
    """Return the card of a network with a denoise strength, and the file of the other network beside it.

    Raises UsageError for a network without one, or a strength beyond 0 ... 1; ModelError if the other file is missing.
    """
    if not 0 <= strength <= 1:
        raise UsageError(f"--denoise {strength:g}: it is from 0 to 1", "0 keeps most noise, 1 removes most")
    card = card_by_name(path.stem)
    if card is None or not card.weaker:
        raise UsageError(f"--denoise: {path.name} has no denoise strength", "it is for realesr-general-x4v3")
    other = path.with_name(f"{card.weaker}{path.suffix}")
    if not other.is_file():
        what = f"--denoise mixes {path.name} with {other.name}, which is not beside it"
        raise ModelError(what, f"download it from {card.page}")
    return card, other


def mixed(first: Content, second: Content, share: float, path: Path) -> bytes:
    """Return `first` with each weight `share` of its own and the rest of `second`'s; `path` is for errors.

    Raises ModelError if the two graphs differ in more than weights.
    """
    return in_own_process(str(path), "mixes", trial.HINT, _mixed, graph_of(first), graph_of(second), share, path)


def _mixed(first: bytes, second: bytes, share: float, path: Path) -> bytes:
    import onnx
    from onnx import numpy_helper

    one, other = (onnx.load_from_string(body) for body in (first, second))
    if [_form(node) for node in one.graph.node] != [_form(node) for node in other.graph.node]:
        raise ModelError(f"{path}: the network that it is mixed with has another form", _SAME)
    pairs = list(zip(_tensors(one.graph), _tensors(other.graph), strict=False))
    if len(pairs) != sum(1 for _ in _tensors(other.graph)):
        raise ModelError(f"{path}: the network that it is mixed with has another number of weights", _SAME)
    for mine, theirs in pairs:
        if (mine.data_type, list(mine.dims)) != (theirs.data_type, list(theirs.dims)):
            raise ModelError(
                f"{path}: weights {mine.name} have another form in the network that it is mixed with", _SAME
            )
        a, b = numpy_helper.to_array(mine), numpy_helper.to_array(theirs)
        if a.dtype.kind == "f":
            made = np.float32(share) * a.astype(np.float32) + np.float32(1 - share) * b.astype(np.float32)
            mine.CopyFrom(numpy_helper.from_array(made.astype(a.dtype), mine.name))
        elif not np.array_equal(a, b):
            raise ModelError(f"{path}: constant {mine.name} differs in the network that it is mixed with", _SAME)
    return bytes(one.SerializeToString())


def _tensors(graph: Any) -> Any:
    """Yield the graph's initializers, sorted by name, and its constants."""
    yield from sorted(graph.initializer, key=lambda tensor: tensor.name)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (each.t for each in node.attribute if each.HasField("t"))


def _form(node: Any) -> tuple[Any, ...]:
    """Return what a node does, without weights in it."""
    values = [] if node.op_type == "Constant" else sorted(each.SerializeToString() for each in node.attribute)
    return node.op_type, tuple(node.input), tuple(node.output), tuple(values)
