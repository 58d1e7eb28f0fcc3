"""jsonl: writes a line of JSON a window, `{"time": seconds, <output>: value, ...}`, or a line an image, with its
`name`.

Numbers have six significant digits; numbers that are not finite become null. An output whose rows differ in length is a
list of as many values, and a text is a string. An image that failed has `error` and no outputs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.encoding import Encoded
from engines.options import Options
from engines.outputs.base import BaseFormat, FileAssembler, check_window_arrays, row_of, window_arrays
from engines.outputs.tables import json_text
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import UTF8, Tensor
from engines.ragged import Ragged
from engines.texts import text_of_row
from schemas.media import MediaInfo
from schemas.parts import PartMeta

_DIGITS = 6
_RESERVED = frozenset(("time", "name", "error"))


class JsonlFormat(BaseFormat[Options]):
    """A part's result is its lines, as one array `rows [bytes] uint8`, which subscribers can read directly."""

    options_class = Options

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that outputs have a row a window, and names that the format does not use itself."""
        check_window_arrays(arrays, _RESERVED)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines."""
        return encoded_rows(rows_of(part, self._values(part, tick)))

    def assemble(self, target: Path, media: MediaInfo) -> "JsonlAssembler":
        """Start `<target>.jsonl`."""
        return JsonlAssembler(target, "jsonl", media)

    def _values(self, part: Part, tick: Tick) -> Iterator[dict[str, Any]]:
        outputs = window_arrays(part, _RESERVED)
        for number in range(len(part.meta.pts)):
            yield {name: self._value(name, array, number) for name, array in outputs.items()}
            tick()

    def _value(self, name: str, array: Value, number: int) -> Any:
        if isinstance(array, Ragged) and f"{name}{UTF8}" in self._labels:
            return text_of_row(array, number)
        return rounded(row_of(array, number).tolist())


class JsonlAssembler(FileAssembler):
    """Writes the lines as they come."""

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Append the part's lines."""
        self.file.write(arrays["rows"].data)


def json_line(row: Mapping[str, Any]) -> str:
    """Return a line of JSON, with its end."""
    return json_text(row) + "\n"


def rounded(value: Any) -> Any:
    """Return a number, or nested lists of numbers, with six significant digits; None for values unknown to JSON."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def rows_of(part: Part, values: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part's lines: `values` of each window in order, with its time or the name of its image.

    An image that failed has its error instead, and no values.
    """
    meta, each = part.meta, iter(values)
    if not meta.media.timed:
        for item in meta.items:
            yield {"name": item.name, "error": item.error} if item.error else {"name": item.name, **next(each)}
    else:
        for pts, row in zip(meta.pts, each, strict=True):
            yield {"time": round(meta.media.clock.seconds(pts), 6), **row}


def encoded_rows(rows: Iterable[Mapping[str, Any]]) -> Encoded:
    """Return a part's result: its lines of JSON, as one array `rows [bytes] uint8`."""
    text = "".join(json_line(row) for row in rows)
    return Encoded({"rows": np.frombuffer(text.encode(), dtype=np.uint8)})
