"""Describes named arrays in a message, and checks that they fit their buffers."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import MessageError
from schemas.fields import Label, Number, clean_name
from schemas.wire import Buffer

DType: TypeAlias = Literal[
    "|b1", "|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"
]  # numpy's names; the digit is the bytes of an element

_ITEM_BYTES = {dtype: int(dtype[2]) for dtype in get_args(DType)}


class ArraySpec(BaseModel):
    """An array in a message: numpy dtype string, shape, and the number of the buffer with its bytes in C order.

    `offsets`, for rows of different lengths: the buffer of the int64 offsets where each row begins, and the last ends.
    """

    model_config = ConfigDict(frozen=True)
    dtype: DType
    shape: Annotated[tuple[Number, ...], Field(max_length=32)]
    buffer: Number
    offsets: Number | None = None


Arrays: TypeAlias = Annotated[dict[Label, ArraySpec], Field(max_length=1024)]


def check_arrays(arrays: Mapping[str, ArraySpec], buffers: Sequence[Buffer]) -> None:
    """Check that each array's buffer exists and holds exactly its elements. Raises MessageError."""
    lengths = [len(buffer) for buffer in buffers]
    for name, spec in arrays.items():
        shape, number = spec.shape, spec.buffer
        if number >= len(lengths):
            raise MessageError(f"array {clean_name(name)} is in buffer {number}, and there are {len(lengths)}")
        nbytes = prod(shape) * _ITEM_BYTES[spec.dtype]
        if nbytes != lengths[number]:
            held = f"{spec.dtype}, shape {list(shape)}, is in a buffer of {lengths[number]} bytes"
            raise MessageError(f"array {clean_name(name)}, {held}")
        if spec.offsets is not None and not _holds_offsets(spec, lengths):
            raise MessageError(f"array {clean_name(name)} has no offsets in buffer {spec.offsets}")
        if not nbytes and prod(max(1, size) for size in shape) >= 1 << 59:  # numpy counts these bytes, too
            raise MessageError(f"array {clean_name(name)} has the shape {list(shape)}")


def _holds_offsets(spec: ArraySpec, lengths: Sequence[int]) -> bool:
    number = spec.offsets
    return (
        number is not None
        and number < len(lengths)
        and lengths[number] % 8 == 0 < lengths[number]
        and len(spec.shape) > 0
    )
