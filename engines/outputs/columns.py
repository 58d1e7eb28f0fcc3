"""Arrays of any length that grow by the rows of parts, and become an npz archive.

An output `NAME` whose rows differ in length is two arrays: all rows end to end in `NAME`, and `NAME_offsets [W + 1]`
int64, so that row i is `NAME[NAME_offsets[i] : NAME_offsets[i + 1]]`.
"""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np

from engines.archive import member_names
from engines.encoding import Encoded
from engines.files import PartFile, writing
from engines.outputs.base import check_reserved, window_arrays
from engines.outputs.tables import Spool
from engines.part import Array, Part, Value
from engines.ragged import Ragged
from schemas.errors import OutputError

_OFFSETS = "_offsets"


def encoded_outputs(part: Part, reserved: Set[str]) -> Encoded:
    """Return a part's arrays with one row a window; of a ragged one its values and its offsets. Raises PipelineError.

    `reserved`: names that the format uses itself.
    """
    outputs = window_arrays(part, reserved)
    ragged = {name: output for name, output in outputs.items() if isinstance(output, Ragged)}
    check_reserved(outputs, {f"{name}{_OFFSETS}" for name in ragged})
    arrays = {name: output.values if isinstance(output, Ragged) else output for name, output in outputs.items()}
    offsets = {f"{name}{_OFFSETS}": output.offsets for name, output in ragged.items()}
    return Encoded(arrays | offsets, {"ragged": sorted(ragged)} if ragged else {})


def decoded_outputs(arrays: Mapping[str, Array], facts: Mapping[str, Any], windows: int) -> dict[str, Value]:
    """Return what `encoded_outputs` encoded of a part of so many windows. Raises OutputError."""
    ragged = set(facts.get("ragged", ()))
    found: dict[str, Value] = {}
    for name, array in arrays.items():
        if name.removesuffix(_OFFSETS) in ragged - {name}:
            continue
        offsets = arrays.get(f"{name}{_OFFSETS}", np.empty(0, np.int64))
        if name in ragged and offsets.shape != (windows + 1,):
            raise OutputError(f"`{name}{_OFFSETS}` of a result does not say where the rows of {windows} windows begin")
        if array.ndim == 0 or len(array) != (offsets[-1] if name in ragged else windows):
            raise OutputError(f"output `{name}` of a result does not have one row for each of {windows} windows")
        found[name] = Ragged(array, offsets) if name in ragged else array
    return found


class Columns:
    """The arrays of one archive, on disk beside `path`, where it will be: a job of any length takes little memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, _Column] = {}
        self._ends: dict[str, int] = {}  # of ragged outputs: how many values there are so far

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def add(self, outputs: Mapping[str, Value]) -> None:
        """Append rows of outputs. Raises OutputError."""
        for name, output in outputs.items():
            if isinstance(output, Ragged):
                first = self._ends.get(name)  # offsets are counted from the first row
                self.append(f"{name}{_OFFSETS}", output.offsets if first is None else output.offsets[1:] + first)
                self._ends[name] = int(output.offsets[-1]) + (first or 0)
            self.append(name, output.values if isinstance(output, Ragged) else output)

    def append(self, name: str, rows: Array) -> None:
        """Append rows to an array, which is made if it is new. Raises OutputError."""
        column = self._columns.get(name)
        if column is not None and not len(rows):
            return  # an empty array has no known shape: pictures may have any size
        if column is None or column.is_empty:
            if column is not None:
                column.close()
            column = self._columns[name] = _Column(rows.dtype, rows.shape[1:], self._path.parent)
        if (column.dtype, column.shape) != (rows.dtype, rows.shape[1:]):
            raise OutputError(
                f"cannot write {self._path}: output `{name}` changes its shape or type from part to part",
                "give the model one input size, or write jsonl",
            )
        with writing(self._path):
            column.append(rows)

    def write_to(self, file: PartFile) -> None:
        """Write the archive. Raises OutputError."""
        with writing(file.path), ZipFile(file.file, "w") as archive:
            members = member_names(self._columns)
            for name, column in self._columns.items():
                with archive.open(ZipInfo(f"{members[name]}.npy"), "w", force_zip64=True) as out:
                    column.copy_to(out)

    def close(self) -> None:
        """Remove all that is on disk; may be called twice."""
        for column in self._columns.values():
            column.close()
        self._columns.clear()


class _Column:
    """The rows of one array, `[rows, *shape]`: up to 4 MiB in memory, more in a temporary file."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], folder: Path) -> None:
        self.dtype = dtype
        self.shape = shape
        self._rows = 0
        self._spool = Spool(folder)

    @property
    def is_empty(self) -> bool:
        return self._rows == 0

    def append(self, rows: Array) -> None:
        self._spool.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data if rows.size else b"")
        self._rows += len(rows)

    def copy_to(self, out: IO[bytes]) -> None:
        """Write the array as an npy file."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self._rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(out, header)
        self._spool.copy_to(out)

    def close(self) -> None:
        self._spool.close()
