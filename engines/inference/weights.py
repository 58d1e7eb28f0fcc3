"""Weights in files beside an ONNX file (ONNX's external data): which of them ONNX Runtime may read.

A graph names the file of such weights. If a worker read any, a model from outside could read any file of the worker's
machine, and the model's hash would not cover its weights. So the graph of a model of several files has the SHA-256 of
a file as its location, and that file is one of the model's. All other external data is refused.
"""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines.content import Content, ModelFiles, graph_of
from schemas.errors import ModelError
from schemas.text import size

_KEY = b"location"  # a key of every external tensor: a file without it has none, and need not be parsed
_ORT_MARK = b"ORTM"  # at byte 4 of a file in ONNX Runtime's own format, whose content cannot be checked
MOST_BYTES = (1 << 31) - 1  # the limit of a protobuf message
ONE_FILE = "save it as one file, by onnx.save_model(model, path, save_as_external_data=False)"


def check_weights(content: Content, name: str) -> None:
    """Raise ModelError unless all weights of a model are in its own files; `name` is for the error."""
    graph = graph_of(content)
    if graph[4:8] == _ORT_MARK:
        raise ModelError(f"model `{name}` is in ONNX Runtime's own format", "give its .onnx file")
    if _KEY not in graph:
        return
    own = {file.sha256: file for file in content.files} if isinstance(content, ModelFiles) else {}
    for tensor in external_tensors(parsed_graph(graph, name)):
        location = location_of(tensor)
        if location not in own:
            what = f"model `{name}`: its weights are in another file, {location[:200]}"
            raise ModelError(what, f"`rigflow model add` takes them in, or {ONE_FILE}")
        check_span(tensor, own[location].size, f"model `{name}`: its file {own[location].name}")
    if isinstance(content, ModelFiles):
        for file in content.files:
            check_size(content.folder / file.sha256, file.size, f"model `{name}`: its file {file.name}")


def check_size(path: Path, size: int, what: str) -> None:
    """Raise ModelError unless `path` is a regular file of this size."""
    try:
        found = path.lstat()
    except OSError as error:
        raise ModelError(f"{what} is missing: {error.strerror}: {path}", "add the model again") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        raise ModelError(f"{what} is damaged: {path} has {found.st_size} bytes, not {size}", "add the model again")


def check_span(tensor: Any, size: int, what: str) -> None:
    """Raise ModelError unless an external tensor lies within a file of this size, and says once where."""
    keys = [entry.key for entry in tensor.external_data]
    if len(set(keys)) < len(keys):  # readers of ONNX differ in which one they use
        raise ModelError(f"{what}: the weights `{tensor.name}` have two places", "export it again")
    try:
        span = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key in ("offset", "length")}
    except ValueError:
        span = {"offset": -1}
    offset, length = span.get("offset", 0), span.get("length", 0)
    if min(offset, length) < 0 or offset + length > size:
        raise ModelError(f"{what} has {size} bytes, too few for the weights `{tensor.name}`", "export it again")


def one_file(content: Content, name: str) -> bytes:
    """A model as one ONNX file, with its weights inside. Raises ModelError for more than a protobuf message holds."""
    if not isinstance(content, ModelFiles):
        return content
    check_weights(content, name)
    parsed = parsed_graph(content.graph, name)
    tensors = list(external_tensors(parsed))
    sizes = {file.sha256: file.size for file in content.files}
    nbytes = len(content.graph) + sum(sizes[location] for location in {location_of(tensor) for tensor in tensors})
    if nbytes > MOST_BYTES:
        what = f"model {name} has {size(nbytes)} with its weights, and engines are built of one file of 2 GB"
        raise ModelError(what, "run it by backend onnxruntime, or export it in fp16")
    for tensor in tensors:
        take_in(tensor, content.folder, f"model `{name}`")
    return bytes(parsed.SerializeToString(deterministic=True))


def take_in(tensor: Any, folder: Path, what: str) -> None:
    """Read an external tensor's bytes into the graph. Raises ModelError."""
    from onnx.external_data_helper import load_external_data_for_tensor

    location = location_of(tensor)
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except Exception as error:  # the checker's own classes share no base below Exception
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{what}: cannot read weights from {location[:200]}: {reason}", ONE_FILE) from error
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def parsed_graph(graph: bytes, name: str) -> Any:
    """The protobuf message of an ONNX file, without weights of other files. Raises ModelError."""
    import onnx

    with suppress(Exception):  # protobuf's own error classes differ between its implementations
        return onnx.load_from_string(graph)
    raise ModelError(f"model `{name}` is not an ONNX file", "export it again")


def external_tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor with external data in initializers, attributes, subgraphs and functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.external_data or message.data_location == TensorProto.EXTERNAL:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in (value,) if hasattr(value, "ListFields") else value:
                yield from external_tensors(each)


def location_of(tensor: Any) -> str:
    """The file that an external tensor names."""
    given = next((entry.value for entry in tensor.external_data if entry.key == "location"), "without a name")
    # protobuf gives bytes for what is not UTF-8
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)
