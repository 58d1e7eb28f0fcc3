"""Reads weights in files beside a model (ONNX's external data) at import; everywhere else they are refused.

A graph names the file of such a tensor. If a worker read it, a model from outside could read any file of the worker's
machine, and the model's hash would not cover its weights.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from schemas.errors import ModelError

_KEY = b"location"  # a key of every external tensor: a file without it has none, and need not be parsed
_ORT_MARK = b"ORTM"  # at byte 4 of a file in ONNX Runtime's own format, whose content cannot be checked
_MOST_BYTES = (1 << 31) - 1  # the limit of a protobuf message
_ONE_FILE = "save it as one file, by onnx.save_model(model, path, save_as_external_data=False)"


def check_weights_inside(model: bytes, name: str) -> None:
    """Raise ModelError unless all weights of a model are in its file; `name` is for the error."""
    if model[4:8] == _ORT_MARK:
        raise ModelError(f"model `{name}` is in ONNX Runtime's own format", "give its .onnx file")
    if _KEY not in model:
        return
    outside = sorted({_location(tensor) for tensor in _external(_parsed(model, name))})
    if outside:
        raise ModelError(
            f"model `{name}`: its weights are in another file, {outside[0][:200]}",
            f"`rigflow model add` takes them in, or {_ONE_FILE}",
        )


def with_weights_inside(model: bytes, path: Path) -> bytes:
    """Return the model of the file `path` with the weights of the files beside it; unchanged if there are none.

    Only regular files in the model's own folder, or in folders below it, are read. Raises ModelError.
    """
    if _KEY not in model:
        return model
    parsed = _parsed(model, str(path))
    tensors = list(_external(parsed))
    if not tensors:
        return model
    from onnx.external_data_helper import load_external_data_for_tensor

    folder = path.resolve().parent
    locations = {_location(tensor): _beside(folder, _location(tensor), path) for tensor in tensors}
    _check_size(sum((folder / each).stat().st_size for each in set(locations.values())), path)
    for tensor in tensors:
        location = locations[_location(tensor)]
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # the checker's own classes share no base below Exception
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"model `{path}`: cannot read weights from {location}: {reason}", _ONE_FILE) from error
    _check_size(parsed.ByteSize(), path)
    return bytes(parsed.SerializeToString(deterministic=True))


def _check_size(nbytes: int, path: Path) -> None:
    """Raise ModelError for more bytes than one ONNX file can have, before the weights are read into memory."""
    if nbytes > _MOST_BYTES:
        what = f"model `{path}` has {nbytes / 1e9:.1f} GB with its weights"
        raise ModelError(what, "rigflow sends a model as one file of at most 2 GB: export it in fp16 or int8")


def _parsed(model: bytes, name: str) -> Any:
    import onnx

    with suppress(Exception):  # protobuf's own error classes differ between its implementations
        return onnx.load_from_string(model)
    raise ModelError(f"model `{name}` is not an ONNX file", "export it again")


def _external(message: Any) -> Iterator[Any]:
    """Yield every tensor with external data in initializers, attributes, subgraphs and functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.external_data or message.data_location == TensorProto.EXTERNAL:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in (value,) if hasattr(value, "ListFields") else value:
                yield from _external(each)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "without a name")


def _beside(folder: Path, location: str, path: Path) -> str:
    """Return the location of weights, if it is a file in `folder` or below. Raises ModelError."""
    try:
        found = (folder / location).resolve(strict=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"model `{path}`: its weights are in {location[:200]}: {reason}"
        raise ModelError(what, "put that file beside it") from error
    if not found.is_relative_to(folder) or ".." in Path(location).parts or Path(location).is_absolute():
        what = f"model `{path}`: its weights are in {location[:200]}, which is not beside it"
        raise ModelError(what, f"nothing else is read: {_ONE_FILE}")
    return location
