"""npz archives of arrays whose names may come from any source: a model's outputs, or a message."""

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from math import prod
from typing import IO, Any, get_args
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from engines.part import Array
from schemas.arrays import DType
from schemas.errors import ItemTooLarge, MediaError
from schemas.wire import Buffer

NPZ_BYTES = 256 << 20  # of all arrays of an archive that is read, without compression
DTYPES = {np.dtype(name).name: np.dtype(name) for name in get_args(DType)}  # "float32" -> as messages have it
_MOST_ARRAYS = 1024
_WRITE_NPZ = "write it by numpy.savez"
_DAMAGED = (BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError, ValueError, OverflowError, OSError)
_SEPARATORS = re.compile(r"[/\\\x00-\x1f\x7f]|^\.+")


def member_names(names: Iterable[str]) -> dict[str, str]:
    """Return a member's name for each array, without `.npy`: its own, with `_` for separators and for dots in front.

    So a program that extracts the archive writes into its own folder. Names that become equal get a number.
    """
    given = list(names)
    taken = {name for name in given if _SEPARATORS.search(name) is None}
    made = {name: name for name in taken}
    for name in given:
        if name not in made:
            safe = free = _SEPARATORS.sub("_", name)
            number = 1
            while free in taken:
                number += 1
                free = f"{safe}-{number}"
            taken.add(free)
            made[name] = free
    return {name: made[name] for name in given}


def write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write arrays of numbers, equal ones as equal bytes; `numpy.savez` takes no array that is called `file`."""
    members = member_names(arrays)
    with ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(ZipInfo(f"{members[name]}.npy"), "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)


def read_npz(data: Buffer) -> dict[str, Array]:
    """Return the arrays of an archive by name, in its order: numbers and bools alone, little-endian, in C order.

    Nothing is allocated that the sizes in the archive do not allow. Raises MediaError, ItemTooLarge.
    """
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members)
            names = _names(members)
            return {name: _array(name, archive.read(each)) for name, each in zip(names, members, strict=True)}
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise MediaError(f"it is no npz, or a damaged one: {reason}", _WRITE_NPZ) from error


def _names(members: Iterable[ZipInfo]) -> list[str]:
    return [member.filename.removesuffix(".npy") for member in members]


def _check_members(members: list[ZipInfo]) -> None:
    """Raise MediaError unless each member is an array with a name of its own, ItemTooLarge if they have too many bytes.

    `ZipFile` reads no more bytes of a member than its `file_size` says.
    """
    names = _names(members)
    for number, member in enumerate(members):
        if not member.filename.endswith(".npy"):
            raise MediaError(f"its member `{member.filename}` is no array", _WRITE_NPZ)
        if not 0 < len(names[number]) <= 256:
            raise MediaError("the name of an array has 1 to 256 characters", _WRITE_NPZ)
        if names[number] in names[:number]:
            raise MediaError(f"it has two arrays `{names[number]}`", _WRITE_NPZ)
    if not 0 < len(members) <= _MOST_ARRAYS:
        raise MediaError(f"it has {len(members)} arrays", f"give 1 to {_MOST_ARRAYS}")
    if (size := sum(member.file_size for member in members)) > NPZ_BYTES:
        raise ItemTooLarge(f"its arrays have {size:,} bytes, and a file has at most {NPZ_BYTES:,}", "cut it into files")


def _array(name: str, data: bytes) -> Array:
    """Return the array in the bytes of an npy file, without a copy where its form is that of messages."""
    file = io.BytesIO(data)
    try:
        shape, by_columns, dtype = _header(file)
    except Exception as error:  # NumPy lets through what Python's tokenizer and parser raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MediaError(f"array `{name}`: {reason}", _WRITE_NPZ) from error
    if (known := DTYPES.get(dtype.name)) is None:
        kind = {"U": "text", "S": "text", "O": "objects"}.get(dtype.kind, str(dtype))
        raise MediaError(f"array `{name}` is {kind}", f"arrays are of {', '.join(DTYPES)}")
    rest = len(data) - file.tell()
    shape = tuple(map(int, shape))  # NumPy lets True through
    if len(shape) > 32 or any(size < 0 for size in shape) or prod(shape) * known.itemsize != rest:
        raise MediaError(f"array `{name}` has {rest} bytes for {dtype.name} {list(shape)}", _WRITE_NPZ)
    array: Array = np.frombuffer(data, dtype, offset=file.tell())
    array = array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)
    return np.ascontiguousarray(array, known).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    formats = np.lib.format
    version = formats.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy of version {version[0]}.{version[1]}")
    read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
    return read(file)
