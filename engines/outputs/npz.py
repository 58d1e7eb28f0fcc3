"""npz: writes a model's outputs as NumPy arrays, one row a window, with their times.

`times [W] float64` are seconds from the media's first frame. Images have `names [W]` instead, and `failed [K, 2]`: the
name and the error of each image that failed.

An output `NAME` whose rows differ in length is two arrays: all rows end to end in `NAME`, and `NAME_offsets [W + 1]`
int64, so that row i is `NAME[NAME_offsets[i] : NAME_offsets[i + 1]]`.

A name of an array that has separators of paths has `_` in their places in the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np

from engines.archive import member_names
from engines.encoding import Encoded
from engines.files import writing
from engines.options import Options
from engines.outputs.base import BaseFormat, FileAssembler, check_reserved, check_window_arrays, window_arrays
from engines.outputs.tables import Spool
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import OutputError
from schemas.media import MediaInfo
from schemas.parts import PartMeta

_OFFSETS = "_offsets"
_RESERVED = frozenset(("times", "names", "failed", "file", "allow_pickle"))  # the last two are np.savez's own


class NpzFormat(BaseFormat[Options]):
    """The outputs unchanged. A part's result is its arrays, so that subscribers get the numbers themselves."""

    options_class = Options

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that outputs have a row a window, and names that the format does not use itself."""
        check_window_arrays(arrays, _RESERVED)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the arrays with one row a window; of a ragged one its values and its offsets."""
        outputs = window_arrays(part, _RESERVED)
        ragged = {name: output for name, output in outputs.items() if isinstance(output, Ragged)}
        check_reserved(outputs, {f"{name}{_OFFSETS}" for name in ragged})
        arrays = {name: output.values if isinstance(output, Ragged) else output for name, output in outputs.items()}
        offsets = {f"{name}{_OFFSETS}": output.offsets for name, output in ragged.items()}
        return Encoded(arrays | offsets, {"ragged": sorted(ragged)} if ragged else {})

    def assemble(self, target: Path, media: MediaInfo) -> "NpzAssembler":
        """Start `<target>.npz`."""
        return NpzAssembler(target, "npz", media)


class NpzAssembler(FileAssembler):
    """Spools the rows of each array to disk and joins them at `close`: a job of any length takes little memory."""

    def __init__(self, target: Path, suffix: str, media: MediaInfo) -> None:
        super().__init__(target, suffix, media)
        self._names: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._columns: dict[str, _Column] = {}
        self._ends: dict[str, int] = {}  # of ragged outputs: how many values there are so far
        if media.timed:
            self._append("times", np.empty(0, np.float64))

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Spool the part's rows. Raises OutputError."""
        self._names += [item.name for item in meta.items if not item.error]
        self._failed += [(item.name, item.error) for item in meta.items if item.error]
        if "times" in self._columns:
            clock = self.media.clock
            self._append("times", np.array([clock.seconds(pts) for pts in meta.pts], np.float64))
        windows, ragged = len(meta.pts), set(facts.get("ragged", ()))
        for name, array in arrays.items():
            if name.removesuffix(_OFFSETS) in ragged - {name}:
                self._append_offsets(name, array, windows)
                continue
            rows = arrays[f"{name}{_OFFSETS}"][-1] if name in ragged else windows
            if array.ndim == 0 or len(array) != rows:
                raise OutputError(f"output `{name}` of a result does not have one row for each of {windows} windows")
            self._append(name, array)

    def close(self) -> list[Path]:
        """Write the file."""
        if not self.media.timed:
            self._append("names", np.array(self._names, dtype=np.str_))
            self._append("failed", np.array(self._failed, dtype=np.str_).reshape(-1, 2))
        with writing(self.file.path), ZipFile(self.file.file, "w") as archive:
            members = member_names(self._columns)
            for name, column in self._columns.items():
                with archive.open(ZipInfo(f"{members[name]}.npy"), "w", force_zip64=True) as out:
                    column.copy_to(out)
        self._close_columns()
        return super().close()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._close_columns()
        super().abort()

    def _append_offsets(self, name: str, offsets: Array, windows: int) -> None:
        """Append the offsets of a part's rows, counted from the first row of the job. Raises OutputError."""
        if offsets.shape != (windows + 1,):
            raise OutputError(f"`{name}` of a result does not say where the rows of {windows} windows begin")
        first = self._ends.get(name)
        self._append(name, offsets if first is None else offsets[1:] + first)
        self._ends[name] = int(offsets[-1]) + (first or 0)

    def _append(self, name: str, rows: Array) -> None:
        column = self._columns.get(name)
        if column is not None and not len(rows):
            return  # an empty array has no known shape: pictures may have any size
        if column is None or column.is_empty:
            if column is not None:
                column.close()
            column = self._columns[name] = _Column(rows.dtype, rows.shape[1:], self.file.path.parent)
        if (column.dtype, column.shape) != (rows.dtype, rows.shape[1:]):
            raise OutputError(
                f"cannot write {self.file.path}: output `{name}` changes its shape or type from part to part",
                "give the model one input size, or write jsonl",
            )
        with writing(self.file.path):
            column.append(rows)

    def _close_columns(self) -> None:
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
