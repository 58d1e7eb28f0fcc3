"""npz: writes a model's outputs as NumPy arrays, one row a window, with their times.

`times [W] float64` are seconds from the media's first frame. Images have `names [W]` instead, and `failed [K, 2]`: the
name and the error of each image that failed. Outputs whose rows differ in length: see `engines.outputs.columns`.

A name of an array that has separators of paths has `_` in their places in the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.encoding import Encoded
from engines.options import Options
from engines.outputs.base import BaseFormat, FileAssembler, check_window_arrays
from engines.outputs.columns import Columns, decoded_outputs, encoded_outputs
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from schemas.media import MediaInfo
from schemas.parts import PartMeta

_RESERVED = frozenset(("times", "names", "failed", "file", "allow_pickle"))  # the last two are np.savez's own


class NpzFormat(BaseFormat[Options]):
    """The outputs unchanged. A part's result is its arrays, so that subscribers get the numbers themselves."""

    options_class = Options

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that outputs have a row a window, and names that the format does not use itself."""
        check_window_arrays(arrays, _RESERVED)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the arrays with one row a window; of a ragged one its values and its offsets."""
        return encoded_outputs(part, _RESERVED)

    def assemble(self, target: Path, media: MediaInfo) -> "NpzAssembler":
        """Start `<target>.npz`."""
        return NpzAssembler(target, "npz", media)


class NpzAssembler(FileAssembler):
    """Spools the rows of each array to disk and joins them at `close`: a job of any length takes little memory."""

    def __init__(self, target: Path, suffix: str, media: MediaInfo) -> None:
        super().__init__(target, suffix, media)
        self._names: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._columns = Columns(self.file.path)
        if media.timed:
            self._columns.append("times", np.empty(0, np.float64))

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Spool the part's rows. Raises OutputError."""
        self._names += [item.name for item in meta.items if not item.error]
        self._failed += [(item.name, item.error) for item in meta.items if item.error]
        if "times" in self._columns:
            clock = self.media.clock
            self._columns.append("times", np.array([clock.seconds(pts) for pts in meta.pts], np.float64))
        self._columns.add(decoded_outputs(arrays, facts, len(meta.pts)))

    def close(self) -> list[Path]:
        """Write the file."""
        if not self.media.timed:
            self._columns.append("names", np.array(self._names, dtype=np.str_))
            self._columns.append("failed", np.array(self._failed, dtype=np.str_).reshape(-1, 2))
        self._columns.write_to(self.file)
        self._columns.close()
        return super().close()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._columns.close()
        super().abort()
