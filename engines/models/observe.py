"""Reads a graph's declarations, and its answer to a test picture. Call it by `in_own_process`: graphs can crash it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engines.content import Content, graph_of
from engines.models.companions.base import Model, Picture, Port
from engines.part import Array

_FREE_SIDE = 64  # of a picture whose size is free: every stride divides it, and large networks are fast enough
_LINE = 48  # the height of lines of text for PP-OCR's networks that read, which have their characters in the metadata
_TALLER = 96  # its height, so that height and width are not confused
_MOST_BYTES = 256 << 20  # of outputs; those of usual models have a few megabytes
_SILENT = {"sr": 16000, "downsample_ratio": 0.25}  # without these values such models fail


@dataclass(frozen=True, slots=True)
class _Values:
    low: float
    high: float


_RANGES = {"unit": _Values(0, 1), "bytes": _Values(0, 255), "signed": _Values(-1, 1)}


def observe(content: Content, path: Path) -> Model:
    """Return the model of `content`, the file at `path`, for the companions. Raises ModelError if it cannot be loaded.

    A model that fails on the test picture has no outputs.
    """
    import onnx

    from engines.inference.onnxruntime import load, tensors_of
    from engines.inference.trial import limit_memory

    limit_memory()
    session = load(content, str(path), once=True)
    inputs, outputs = (tuple(Port(each.name, each.dtype, each.shape) for each in side) for side in tensors_of(session))
    parsed = onnx.load_from_string(graph_of(content))
    metadata = {each.key: each.value for each in parsed.metadata_props}
    model = Model(path, inputs, outputs, metadata, parsed.producer_name, parameters=_parameters(parsed.graph))
    if (picture := model.picture) is None:
        return model
    first = tuple(_kinds_behind(parsed.graph, inputs[picture.number].name))
    taller = _LINE if "character" in metadata else _TALLER
    shown = test_picture(picture.height or taller, picture.width or _FREE_SIDE)
    answers: dict[str, dict[str, Array]] = {}
    for values in _RANGES:
        answer = _run(session, model, picture, shown, values)
        if answer is None or sum(array.nbytes for array in answer.values()) > _MOST_BYTES:
            break
        answers[values] = answer
        if not any(array.ndim == 4 and array.shape[2] >= shown.shape[0] for array in answer.values()):
            break  # the other ranges apply only to pictures
    return replace(model, first=first, answers=answers, picture_values=shown)


def test_picture(height: int, width: int) -> Array:
    """Return slopes, a disc and a grid, `[height, width, 3]` float32 in 0 ... 1: smooth parts, edges, all colours."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y, x = rows / max(1, height - 1), columns / max(1, width - 1)
    disc = ((x - 0.55) ** 2 + (y - 0.45) ** 2 < 0.06).astype(np.float32)
    grid = (np.sin(x * 25) * np.sin(y * 25) > 0).astype(np.float32) * 0.2
    picture = np.stack([0.2 + 0.6 * x, 0.25 + 0.5 * y, 0.75 - 0.5 * x * y], axis=-1)
    shown: Array = np.clip(picture * (1 - 0.6 * disc[..., None]) + grid[..., None], 0, 1).astype(np.float32)
    return shown


def _run(session: Any, model: Model, picture: Picture, shown: Array, values: str) -> dict[str, Array] | None:
    span = _RANGES[values]
    row = shown * (span.high - span.low) + span.low
    row = row[..., : picture.channels] if picture.channels == 3 else row.mean(-1, keepdims=True)
    row = row.transpose(2, 0, 1) if picture.layout == "nchw" else row
    feed = {port.name: _other(port) for port in model.inputs}
    port = model.inputs[picture.number]
    batch = port.shape[0] if picture.batch else 1
    count = batch if isinstance(batch, int) else 1
    feed[port.name] = (np.stack([row] * count) if picture.batch else row).astype(port.dtype)
    try:
        found = session.run(None, feed)
    except Exception:  # the runtime's own classes share no base; the import reports the error
        return None
    named = zip((output.name for output in model.outputs), found, strict=True)
    return {name: array[:1] if array.ndim and len(array) == count > 1 else array for name, array in named}


def _other(port: Port) -> Array:
    """Return zeros, or the value without which such a model fails."""
    shape = tuple(size if isinstance(size, int) else 1 for size in port.shape)
    return np.full(shape, _SILENT.get(port.name, 0), port.dtype)


def _kinds_behind(graph: Any, name: str) -> Iterator[str]:
    """Yield the kinds of the nodes after an input, as long as one leads to the next; layouts and types are skipped."""
    constants: Mapping[str, Any] = {each.name: each for each in graph.initializer}
    for _ in range(8):
        readers = [node for node in graph.node if name in node.input and name not in constants]
        if len(readers) != 1:
            return
        if readers[0].op_type not in ("Transpose", "Cast", "Identity", "Unsqueeze"):
            yield readers[0].op_type
        name = readers[0].output[0]


def _parameters(graph: Any) -> int:
    """Return how many numbers a graph has: in its initializers, and in its constants, where some exporters put them."""
    attributes = (each for node in graph.node if node.op_type == "Constant" for each in node.attribute)
    constants = [each.t for each in attributes if each.HasField("t")]
    return sum(prod(tensor.dims) for tensor in (*graph.initializer, *constants))
