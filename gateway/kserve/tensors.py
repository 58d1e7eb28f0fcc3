"""Requests and answers of KServe v2 as arrays: JSON, and bytes behind it by the binary tensor extension."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from engines.part import Array
from schemas.errors import UsageError, format_field_error
from schemas.wire import Buffer

DTYPES = {  # of KServe -> of NumPy, little-endian
    "BOOL": "|b1", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "|i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
NAMES = {np.dtype(dtype).name: name for name, dtype in DTYPES.items()}
_MOST_INPUTS, _MOST_RANK = 1024, 32
Size = Annotated[int, Field(ge=0, lt=1 << 62)]
Parameters = dict[str, JsonValue]


class _Lax(BaseModel):
    """Fields that are not known are ignored, as Triton does; a number in quotes is none."""

    model_config = ConfigDict(strict=True, frozen=True)


class InputTensor(_Lax):
    """An input: its data in JSON, or `binary_data_size` bytes behind the JSON."""

    name: str
    shape: list[Size] = Field(max_length=_MOST_RANK)
    datatype: str
    parameters: Parameters = {}
    data: Any = None


class WantedOutput(_Lax):
    """An output that is wanted, and its form."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Lax):
    """The JSON of a request."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: list[InputTensor] = Field(max_length=_MOST_INPUTS)
    outputs: list[WantedOutput] | None = Field(default=None, max_length=_MOST_INPUTS)


def parse_request(body: Buffer, header_bytes: int | None) -> tuple[InferRequest, dict[str, Array]]:
    """Return a request and its inputs by name; `header_bytes`: the length of the JSON, if bytes follow.

    Raises UsageError. Nothing is allocated by what a shape says before the data has that size.
    """
    view = memoryview(body)
    if header_bytes is not None and not 0 <= header_bytes <= len(view):
        raise UsageError(f"Inference-Header-Content-Length is {header_bytes}, and the body has {len(view)} bytes")
    head = view[:header_bytes]
    try:
        request = InferRequest.model_validate(from_json(bytes(head), allow_inf_nan=False))
    except ValidationError as error:
        raise UsageError(f"the request: {format_field_error(error.errors()[0])}") from error
    except ValueError as error:
        raise UsageError(f"the request is no JSON: {error}") from error
    rest = view[len(head) :]
    arrays: dict[str, Array] = {}
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise UsageError(f"input `{tensor.name}` is there twice")
        arrays[tensor.name], rest = _array(tensor, rest)
    if rest:
        raise UsageError(f"{len(rest)} bytes follow the last input")
    return request, arrays


def _array(tensor: InputTensor, rest: memoryview) -> tuple[Array, memoryview]:
    """Return an input, and the bytes behind it."""
    where, count = f"input `{tensor.name}`", prod(tensor.shape)
    if tensor.datatype not in DTYPES:
        raise UsageError(f"{where}: datatype {tensor.datatype[:40]!a}", f"there are {', '.join(DTYPES)}")
    dtype = np.dtype(DTYPES[tensor.datatype])
    if prod(filter(None, tensor.shape)) * dtype.itemsize >= 1 << 63:  # NumPy has none such, also where it is empty
        raise UsageError(f"{where}: {tensor.shape} is too large")
    size = tensor.parameters.get("binary_data_size")
    for name in tensor.parameters:
        if name.startswith("shared_memory"):
            raise UsageError(f"{where}: shared memory is not offered", "send its bytes")
    if size is None:
        if tensor.data is None:
            raise UsageError(f"{where} has neither data nor binary_data_size")
        return _from_json(tensor, dtype, count).reshape(tensor.shape), rest
    if tensor.data is not None:
        raise UsageError(f"{where} has data and binary_data_size", "leave one of them out")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
        raise UsageError(f"{where}: binary_data_size is {str(size)[:40]}, and {len(rest)} bytes are left")
    if size != count * dtype.itemsize:
        raise UsageError(f"{where}: {tensor.datatype} {tensor.shape} has {count * dtype.itemsize} bytes, not {size}")
    return np.frombuffer(rest[:size], dtype).reshape(tensor.shape), rest[size:]


def _from_json(tensor: InputTensor, dtype: np.dtype[Any], count: int) -> Array:
    """Return the values of nested or flat lists, each exact or rounded to the nearest float. Raises UsageError."""
    where, data = f"input `{tensor.name}`", tensor.data if isinstance(tensor.data, list) else [tensor.data]
    if dtype.kind == "b":
        what = "true and false"
    elif dtype.kind in "iu":
        what = f"whole numbers of {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
    else:
        what = f"numbers up to {np.finfo(dtype).max:g}"
    if _has_text(data):
        raise UsageError(f"{where}: {tensor.datatype} takes {what}")
    try:
        given = np.array(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: its lists have different lengths") from error
    if dtype == np.uint64 and given.dtype.kind == "f":  # NumPy makes floats of numbers on both sides of 2 ** 63
        exact = np.array(data, object)
        if all(type(each) is int and 0 <= each < 1 << 64 for each in exact.flat):
            given = exact.astype(dtype)
    if given.size != count:
        raise UsageError(f"{where}: {tensor.shape} has {count} values, and data has {given.size}")
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if not count:
        return np.empty(0, dtype)
    with np.errstate(all="ignore"):
        cast = given.astype(dtype) if given.dtype.kind in kinds else None
        fits = cast is not None and (np.isfinite(cast) if dtype.kind == "f" else cast == given).all()
    if cast is None or not fits:
        raise UsageError(f"{where}: {tensor.datatype} takes {what}")
    return cast.reshape(-1)


def _has_text(data: list[Any]) -> bool:
    """Whether nested lists have a text: NumPy would give each of their values the space of the longest one."""
    kinds = set(map(type, data))
    return str in kinds or (list in kinds and any(_has_text(each) for each in data if type(each) is list))


def encode_answer(
    head: Mapping[str, Any], outputs: Mapping[str, Array], request: InferRequest, labels: Mapping[str, Sequence[str]]
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON if bytes follow. Raises UsageError."""
    all_binary = request.parameters.get("binary_data_output") is True
    wanted = request.outputs or [WantedOutput(name=name) for name in outputs]
    tensors: list[dict[str, Any]] = []
    behind: list[Buffer] = []
    for each in wanted:
        if each.name not in outputs:
            raise UsageError(f"there is no output `{each.name}`", f"there are {_listed(outputs)}")
        array, classes = outputs[each.name], each.parameters.get("classification")
        binary = bool(each.parameters.get("binary_data", all_binary))
        tensor: dict[str, Any] = {"name": each.name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if classes:
            found = classified(array, classes, labels.get(each.name, ()))
            tensor |= {"datatype": "BYTES", "shape": [len(found), len(found[0]) if found else 0]}
            values: Any = [text for row in found for text in row]
            data: Buffer = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in values)
        else:
            values = None
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        if binary:
            tensor["parameters"] = {"binary_data_size": len(data)}
            behind.append(data)
        else:
            tensor["data"] = array.reshape(-1).tolist() if values is None else values
        tensors.append(tensor)
    body = to_json({**head, "outputs": tensors}, inf_nan_mode="null")
    return (b"".join((body, *behind)), len(body)) if behind else (body, None)


def classified(array: Array, classes: JsonValue, labels: Sequence[str]) -> list[list[str]]:
    """Return the largest values of each row as Triton writes them, `value:index` or `value:index:label`."""
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1 or array.ndim < 1:
        raise UsageError("classification is the number of the best classes, 1 or more")
    rows = array.reshape(len(array), -1)
    found = []
    for row in rows:
        best = np.argsort(-row.astype(np.float64), kind="stable")[:classes].tolist()
        found.append([f"{row[n]:f}:{n}" + (f":{labels[n]}" if n < len(labels) else "") for n in best])
    return found


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names)
