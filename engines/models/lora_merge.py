"""Merges LoRAs into the weights of a Stable Diffusion as ONNX files, which makes another model.

Exporters keep the names of most weights, but not of those of linear layers, which they transpose. There the module is
in the name of the node that multiplies, or in its metadata. Weights that are changed get a file of their own; the
others stay in the files that they are in, which both models share.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from engines.content import ModelFiles
from engines.diffusion.folder import GRAPH, MAIN, file_of, stored_name
from engines.inference.weights import take_in
from engines.models.files import NewFiles
from engines.models.folder_kinds import kind_of_folder
from engines.models.folders import Taken
from engines.models.lora import Change, file_and_strength, read_lora
from engines.models.store import Found
from engines.models.surgery import Surgery
from engines.part import Array
from schemas.errors import ModelError, UsageError
from schemas.model_files import FileSpec

_KINDS = ("MatMul", "Gemm", "Conv")
_MOVES = ("Identity", "Transpose", "Cast")
_SCOPES = "pkg.torch.onnx.name_scopes"  # metadata of a node, by torch's newer exporter
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_ALIGNED = 64  # bytes, of a weight in a file
_OTHER_MODEL = "take a LoRA of this kind of model, and an export by optimum whose nodes are not fused"


def with_loras(found: Found, given: Sequence[str], new: NewFiles) -> tuple[Found, dict[str, str]]:
    """Return a model with `FILE` or `FILE:STRENGTH` merged into it, and the fields of its card that say so.

    Raises UsageError for a model of another kind; ModelError for a LoRA that cannot be read, or does not fit.
    """
    content, kind = found.content, kind_of_folder(found.path.parent)
    if kind is None or found.path.name != MAIN or not isinstance(content, ModelFiles):
        raise UsageError(f"--lora: {found.name} is no Stable Diffusion", "it is for folders of ONNX files with one")
    changes: dict[str, list[tuple[Change, str]]] = {}
    names = []
    for each in given:
        path, strength = file_and_strength(each)
        names.append((path.stem, strength))
        for change in read_lora(path, strength):
            changes.setdefault(change.network, []).append((change, str(path)))
    why = dict(found.taken.why)
    for network, own in changes.items():
        for file, reason in _merged(content, network, own, new).items():
            old = next((each for each in why if each.name == file.name), None)
            why = {each: text for each, text in why.items() if each is not old} | {file: reason}
    merged = replace(content, files=tuple(why))
    about = next(str(line.value) for line in kind.lines(found.path.parent) if line.field == "description")
    told = ", ".join(f"{name} at {strength:g}" for name, strength in names)
    title = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([found.name, *(name for name, _ in names)]))
    fields = {"name": title[:64].strip("-._"), "description": f"{about}; with LoRA {told}"}
    return replace(found, taken=Taken(merged, why, found.taken.left_out)), fields


@dataclass(slots=True)
class _Weight:
    """A weight that a node reads, through nodes that only move it; `changes` are for it as the node reads it."""

    node: Any
    place: int
    stored: Any
    moves: list[Any]
    changes: list[tuple[Change, str]] = field(default_factory=list)


def _merged(
    content: ModelFiles, network: str, changes: Sequence[tuple[Change, str]], new: NewFiles
) -> dict[FileSpec, str]:
    """The new files of a network, and what they are."""
    graph, source = file_of(content, stored_name(f"{network}/{GRAPH}")), changes[0][1]
    if graph is None:
        raise ModelError(f"{source} changes the {network}, which the model does not have", _OTHER_MODEL)
    surgery = Surgery(graph, f"{network}/{GRAPH}")
    weights = _found(surgery, changes, network)
    outside = [each for each in weights if each.stored.external_data]
    for each in weights:
        tensor = TensorProto(name=surgery.fresh(f"rigflow_lora_{each.stored.name}"))
        if each in outside:
            tensor.data_type, shape = each.stored.data_type, _shape(each)
            tensor.dims.extend(shape)
            tensor.data_location = TensorProto.EXTERNAL
        else:
            tensor = numpy_helper.from_array(_changed(each, content), tensor.name)
        surgery.graph.initializer.append(tensor)
        each.node.input[each.place] = tensor.name
    made: dict[FileSpec, str] = {}
    if outside:
        file = new.put_chunks((_padded(_changed(each, content)) for each in outside), f"{network}.lora.weights")
        made[file] = f"weights of the {network} that a LoRA changes"
        added, offset = {each.name: each for each in surgery.graph.initializer}, 0
        for each in outside:
            tensor = added[each.node.input[each.place]]
            length = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * int(np.prod(tensor.dims))
            for key, value in (("location", file.sha256), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            offset += length + -length % _ALIGNED
    _drop_unread(surgery)
    made[new.put(surgery.finish(), stored_name(f"{network}/{GRAPH}"))] = f"the graph of {network}, with LoRA"
    return made


def _found(surgery: Surgery, changes: Sequence[tuple[Change, str]], network: str) -> list[_Weight]:
    """The weights that are changed, each with its changes. Raises ModelError unless each change has one that fits."""
    makers = {name: node for node in surgery.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in surgery.graph.initializer}
    readers: dict[str, list[_Weight]] = {}
    for node in surgery.graph.node:
        if node.op_type in _KINDS and (weight := _weight(node, makers, stored)) is not None:
            readers.setdefault(_module(node, weight), []).append(weight)
    found: dict[int, _Weight] = {}
    missing: list[tuple[Change, str]] = []
    for change, source in changes:
        weights = readers.get(change.module) or _ending(readers, change.module)
        if not weights:
            missing.append((change, source))
        for weight in weights:
            _check(weight, change, source, network)
            found.setdefault(id(weight), weight).changes.append((change, source))
    if missing:
        change, source = missing[0]
        there = f"{len(changes) - len(missing)} of {len(changes)} weights that it changes are there"
        raise ModelError(f"{source} changes {network} {change.module}, which is not there ({there})", _OTHER_MODEL)
    return list(found.values())


def _ending(readers: Mapping[str, list[_Weight]], module: str) -> list[_Weight]:
    """The weights of the module with the shortest name that ends so: exporters put names of their own before it."""
    names = [name for name in readers if name.endswith(f"_{module}")]
    return readers[min(names, key=len)] if names else []


def _weight(node: Any, makers: Mapping[str, Any], stored: Mapping[str, Any]) -> _Weight | None:
    """The weight that a node reads; None if it reads none."""
    for place, name in list(enumerate(node.input))[1::-1]:
        moves = []
        while name in makers and makers[name].op_type in _MOVES:
            moves.append(makers[name])
            name = makers[name].input[0]
        if name in stored and len(stored[name].dims) >= 2:
            return _Weight(node, place, stored[name], moves[::-1])
    return None


def _module(node: Any, weight: _Weight) -> str:
    """The name of the module that a node is of, with `_` for each dot.

    The weight's own name is taken last: equal weights of several modules may be stored once, by the name of one.
    """
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            with suppress(ValueError, SyntaxError, TypeError, IndexError):
                return _plain(str(ast.literal_eval(entry.value)[-2]))
    return _plain(node.name.rpartition("/")[0] or weight.stored.name.removesuffix(".weight"))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).strip("_").replace("text_model_", "")


def _check(weight: _Weight, change: Change, source: str, network: str) -> None:
    """Raise ModelError unless a change fits a weight."""
    shape = _rows_first(weight, _shape(weight))
    own = (change.up.shape[0], change.down.shape[1])
    if (shape[0], int(np.prod(shape[1:]))) != own:
        what = f"{source}: {network} {change.module} is {'x'.join(map(str, shape))} here, and {own[0]}x{own[1]} there"
        raise ModelError(what, _OTHER_MODEL)
    if weight.stored.data_type not in _FLOATS:
        what = f"{source}: {network} {change.module} is quantised here"
        raise ModelError(what, "merge it into an export in float16 or float32")


def _shape(weight: _Weight) -> tuple[int, ...]:
    """The shape of a weight as its node reads it."""
    shape = tuple(weight.stored.dims)
    for move in weight.moves:
        if move.op_type == "Transpose":
            shape = tuple(shape[axis] for axis in _axes(move, len(shape)))
    return shape


def _axes(move: Any, rank: int) -> list[int]:
    given = next((list(each.ints) for each in move.attribute if each.name == "perm"), None)
    return list(range(rank))[::-1] if given is None else given


def _is_turned(weight: _Weight) -> bool:
    """Whether its node reads a weight as `[in, out]`."""
    transposed = any(each.name == "transB" and each.i for each in weight.node.attribute)
    return weight.node.op_type != "Conv" and not transposed


def _rows_first(weight: _Weight, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if _is_turned(weight) else shape


def _changed(weight: _Weight, content: ModelFiles) -> Array:
    """The new weight, as its node reads it, in the type in which it is stored."""
    tensor = TensorProto()
    tensor.CopyFrom(weight.stored)
    if tensor.external_data:
        take_in(tensor, content.folder, f"the weights {tensor.name}")
    array = numpy_helper.to_array(tensor)
    for move in weight.moves:
        if move.op_type == "Transpose":
            array = array.transpose(_axes(move, array.ndim))
    found = array.astype(np.float32)
    for change, source in weight.changes:
        delta = np.float32(change.factor) * (change.up @ change.down)
        found = found + (delta.T if _is_turned(weight) else delta).reshape(found.shape)
        with np.errstate(over="ignore"):
            rounded = found.astype(array.dtype)
        if not np.isfinite(rounded).all():
            raise ModelError(f"{source}: {change.module} becomes a number that is none", "lower the strength")
    return np.ascontiguousarray(rounded)


def _padded(array: Array) -> bytes:
    body = array.tobytes()
    return body + bytes(-len(body) % _ALIGNED)


def _drop_unread(surgery: Surgery) -> None:
    """Remove weights that no node reads any more, and the nodes that moved them."""
    graph, outputs = surgery.graph, {each.name for each in surgery.graph.output}
    while True:
        read = outputs | {name for node in surgery.all_nodes() for name in node.input}
        unread = [node for node in graph.node if node.op_type in _MOVES and not read & set(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    for tensor in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(tensor)
