"""Writes the lines of `detections` beside the pictures of `annotated`: one pass of a model gives both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.encoding import Assembler
from engines.part import Array
from schemas.parts import PartMeta
from schemas.segments import Fragment


class LinesBeside:
    """Gives each part to both; a part without frames has no lines."""

    def __init__(self, pictures: Assembler, lines: Assembler) -> None:
        self._pictures, self._lines = pictures, lines

    @property
    def notes(self) -> list[str]:
        """The notes of both."""
        return [*self._pictures.notes, *self._lines.notes]

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's pictures and its lines. Raises OutputError."""
        self._pictures.add(meta, arrays, facts)
        if "rows" in arrays:
            self._lines.add(meta, arrays, facts)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Write what a segment has beside the picture. Raises OutputError and MediaError."""
        self._pictures.add_tracks(fragment, arrays)

    def close(self) -> list[Path]:
        """Finish the files. Raises OutputError."""
        return [*self._pictures.close(), *self._lines.close()]

    def abort(self) -> None:
        """Remove the unfinished files."""
        self._pictures.abort()
        self._lines.abort()
