"""npz: a model's outputs as NumPy arrays, one row a window, with their times.

`times [W] float64` are seconds from the media's first frame. Of images there are `names [W]` instead, and
`failed [K, 2]` with the name and the error of each that failed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.outputs.base import Encoded, Options, parse_options, window_arrays
from engines.outputs.files import PartFile, writing
from engines.part import Array, Part, Tick, no_tick
from schemas.errors import OutputError
from schemas.messages import MediaInfo, PartMeta
from schemas.pipeline import EncodeStage
from schemas.wire import Buffer

_RESERVED = frozenset(("times", "names", "failed", "file", "allow_pickle"))  # the last two are np.savez's own


class NpzFormat:
    """The outputs as they are. A part's result is its arrays, so subscribers see the numbers themselves."""

    def __init__(self, stage: EncodeStage) -> None:
        parse_options(Options, stage)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """The arrays with one row a window."""
        return Encoded(window_arrays(part, _RESERVED))

    def assemble(self, target: Path, media: MediaInfo) -> "NpzAssembler":
        """Starts `<target>.npz`."""
        return NpzAssembler(PartFile.create(target.with_name(f"{target.name}.npz")), media)


class NpzAssembler:
    """Keeps the arrays (they are small: 22 MB for a day of fingerprints) and writes them at `close`."""

    def __init__(self, file: PartFile, media: MediaInfo) -> None:
        self.notes: list[str] = []
        self._file = file
        self._media = media
        self._clock = media.clock
        self._times: list[float] = []
        self._names: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._arrays: dict[str, list[Array]] = {}

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Keeps the part's rows."""
        self._times += [self._clock.seconds(pts) for pts in meta.pts]
        self._names += [item.name for item in meta.items if not item.error]
        self._failed += [(item.name, item.error) for item in meta.items if item.error]
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != len(meta.pts):
                raise OutputError(f"output `{name}` of a result has not one row for each of {len(meta.pts)} windows")
            # a part may be a view into a far larger message: keep its rows, not the message
            self._arrays.setdefault(name, []).append(array.copy())

    def add_sound(self, container: str, data: Buffer) -> None:
        """Sound has no place in arrays."""

    def close(self) -> list[Path]:
        """Writes the file."""
        columns = {name: self._joined(name, rows) for name, rows in self._arrays.items()}
        if self._media.kind == "image":
            columns["names"] = np.array(self._names, dtype=np.str_)
            columns["failed"] = np.array(self._failed, dtype=np.str_).reshape(-1, 2)
        else:
            columns["times"] = np.array(self._times, dtype=np.float64)
        with writing(self._file.path):
            np.savez(self._file.file, allow_pickle=False, **columns)
        return [self._file.commit()]

    def _joined(self, name: str, rows: list[Array]) -> Array:
        if len({row.shape[1:] for row in rows}) > 1:
            raise OutputError(
                f"cannot write {self._file.path}: output `{name}` changes its shape from part to part",
                "give the model one input size, or write jsonl",
            )
        return np.concatenate(rows)

    def abort(self) -> None:
        """Removes what was begun."""
        self._file.discard()
