"""Writes tables as csv beside the lines of a format, and spools data that comes later in a file."""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from engines.files import PartFile, writing
from schemas.wire import Buffer

_HELD_IN_MEMORY = 4 << 20


def json_text(value: Any) -> str:
    """Return JSON on one line, in Unicode."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


class CsvFile:
    """`<target>.csv`: values with commas or quotes are quoted, as in RFC 4180; lines end with a line feed."""

    def __init__(self, target: Path, columns: Sequence[str]) -> None:
        self._file = PartFile.create(target.with_name(f"{target.name}.csv"))
        self.write([columns])

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append rows; None is an empty field. Raises OutputError."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> Path:
        """Finish the file."""
        return self._file.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.discard()


class Spool:
    """Bytes that are copied to a file later: up to 4 MiB in memory, more in a temporary file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = SpooledTemporaryFile(max_size=_HELD_IN_MEMORY, dir=str(folder))  # noqa: SIM115, see close

    def write(self, data: Buffer) -> None:
        """Append bytes. Raises OutputError."""
        with writing(self._folder):
            self._file.write(data)

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all of it to `file`."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, file, 1 << 20)

    def close(self) -> None:
        """Remove it; may be called twice."""
        self._file.close()
