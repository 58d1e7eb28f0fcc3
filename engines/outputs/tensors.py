"""tensors: writes the outputs of a model for each file without times, an npz archive of arrays.

They have a row for each row of a file of tensors, and one for an image. Of a single file the archive is `<target>.npz`,
of several `<target>/<name>.npz`. A file of which a row failed has none. Outputs whose rows differ in length: see
`engines.outputs.columns`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.encoding import Encoded
from engines.files import PartFile, writing
from engines.options import Options
from engines.outputs.base import BaseFormat, check_window_arrays
from engines.outputs.columns import Columns, decoded_outputs, encoded_outputs
from engines.outputs.images import NamedFiles, stem_of
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.registry import load
from schemas.errors import PipelineError
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_NONE: frozenset[str] = frozenset()


class TensorsFormat(BaseFormat[Options]):
    """The outputs unchanged. A part's result is its arrays, so that subscribers get the numbers themselves."""

    options_class = Options

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that outputs have a row for each item, and that the media have no times."""
        if timed := [kind for kind in media if load("media", kind).timed]:
            raise PipelineError(f"format tensors has no place for the times of {timed[0]}", 'take format = "npz"')
        check_window_arrays(arrays, _NONE)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the arrays; of a ragged one its values and its offsets."""
        return encoded_outputs(part, _NONE)

    def assemble(self, target: Path, media: MediaInfo) -> "TensorsAssembler":
        """Start the files."""
        return TensorsAssembler(target)


class TensorsAssembler:
    """Writes a file when all its pieces came; `close` gives all files their names.

    The first one is called as the only one is, until there is a second.
    """

    def __init__(self, target: Path) -> None:
        self.notes: list[str] = []
        self._target = target
        self._names = NamedFiles(target, "npz")
        self._files: list[tuple[PartFile, Path]] = []  # with the path among several
        self._seen = 0
        self._current: _Pieces | None = None

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Take the rows of a part. Raises OutputError."""
        outputs = decoded_outputs(arrays, facts, len(meta.pts))
        for item, rows in _files(meta):
            first = meta.pts[rows.start] if rows else 0
            if self._current is not None and not self._current.continued_by(item):
                self._finish(self._current)
            if self._current is None:
                self._seen += 1
                self._current = _Pieces(item, self._target)
            self._current.add(item, first, {name: _cut(value, rows) for name, value in outputs.items()}, len(rows))
            if not item.more:
                self._finish(self._current)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: tensors have none."""

    def close(self) -> list[Path]:
        """Give all files their names. Raises OutputError."""
        if self._current is not None:
            self._finish(self._current)
        if self._seen > 1:
            for file, path in self._files:
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                file.call(path)
        return [file.commit() for file, _ in self._files]

    def abort(self) -> None:
        """Remove the unnamed files, and the folder if it is then empty."""
        if self._current is not None:
            self._current.columns.close()
        for file, _ in self._files:
            file.discard()
        self._names.remove_folder()

    def _finish(self, pieces: "_Pieces") -> None:
        self._current = None
        path = self._names.path(stem_of(pieces.item))
        try:
            if pieces.item.error:
                return
            if not pieces.complete:
                self.notes.append(f"{pieces.item.name}: rows of it failed, and its outputs are not written")
                return
            alone = self._target.with_name(f"{self._target.name}.npz")
            file = PartFile.create(path if self._files else alone)
            self._files.append((file, path))
            pieces.columns.write_to(file)
            file.seal()
        finally:
            pieces.columns.close()


class _Pieces:
    """The outputs of the pieces of one file that came so far. `item` is that of the last one, or of one that failed."""

    def __init__(self, item: Item, target: Path) -> None:
        self.item = item
        self.columns = Columns(target)
        self._rows = 0
        self._whole = True

    def continued_by(self, item: Item) -> bool:
        """Return whether an item is a further piece of the file."""
        return item.piece_of is not None and item.piece_of == self.item.piece_of

    def add(self, item: Item, first: int, outputs: Mapping[str, Value], rows: int) -> None:
        """Append rows, of which `first` is the number of the first one in the file. Raises OutputError."""
        if self.item.error:
            return
        self.item = item
        self._whole = self._whole and first == self._rows
        self._rows += rows
        if self._whole and not item.error:
            self.columns.add(outputs)

    @property
    def complete(self) -> bool:
        """Whether no row is missing."""
        return self._whole and not self.item.more


def _files(meta: PartMeta) -> Iterator[tuple[Item, range]]:
    """Yield the item of each file in a part and its rows, of which the first of a file has the number 0."""
    start = row = 0
    item: Item | None = None
    for each in meta.items:
        if item is not None and (each != item or meta.pts[row] == 0):
            yield item, range(start, row)
            item, start = None, row
        if each.error:
            yield each, range(0)
            continue
        item = each
        row += 1
    if item is not None:
        yield item, range(start, row)


def _cut(value: Value, rows: range) -> Value:
    return value.rows(rows.start, rows.stop) if isinstance(value, Ragged) else value[rows.start : rows.stop]
