"""jsonl: a line of JSON a window, `{"time": seconds, <output>: value, ...}`; a line an image, `{"name": ..., ...}`.

Numbers have six significant digits, and what is not finite is null. An image that failed has `error` and no outputs.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.files import PartFile
from engines.heads.base import Tensor
from engines.outputs.base import check_window_arrays, parse_options, window_arrays
from engines.part import Array, Part, Tick, no_tick
from engines.ports import Encoded, Options
from schemas.messages import Fragment, MediaInfo, PartMeta
from schemas.pipeline import EncodeStage

_DIGITS = 6
_RESERVED = frozenset(("time", "name", "error"))


class JsonlFormat:
    """A part's result is its lines, as one array `rows [bytes] uint8`, for subscribers to read as they are."""

    def __init__(self, stage: EncodeStage) -> None:
        parse_options(Options, stage)

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Outputs with a row a window, whose names the format does not need for itself."""
        check_window_arrays(arrays, _RESERVED)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """The part's lines."""
        text = "".join(json_line(row) for row in _rows(part))
        return Encoded({"rows": np.frombuffer(text.encode(), dtype=np.uint8)})

    def assemble(self, target: Path, media: MediaInfo) -> "JsonlAssembler":
        """Starts `<target>.jsonl`."""
        return JsonlAssembler(PartFile.create(target.with_name(f"{target.name}.jsonl")))


class JsonlAssembler:
    """Writes the lines as they come."""

    def __init__(self, file: PartFile) -> None:
        self.notes: list[str] = []
        self._file = file

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Appends the part's lines."""
        self._file.write(arrays["rows"].data)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Sound has no place in lines."""

    def close(self) -> list[Path]:
        """Finishes the file."""
        return [self._file.commit()]

    def abort(self) -> None:
        """Removes what was begun."""
        self._file.discard()


def json_line(row: Mapping[str, Any]) -> str:
    """A line of JSON, with its end."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(", ", ": ")) + "\n"


def rounded(value: Any) -> Any:
    """A number, or nested lists of numbers, with six significant digits; None for what JSON cannot hold."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _rows(part: Part) -> Iterator[dict[str, Any]]:
    meta = part.meta
    outputs = {name: array.tolist() for name, array in window_arrays(part, _RESERVED).items()}
    values = ({name: rounded(rows[row]) for name, rows in outputs.items()} for row in range(len(meta.pts)))
    if meta.media.kind == "image":
        for item in meta.items:
            yield {"name": item.name, "error": item.error} if item.error else {"name": item.name, **next(values)}
    else:
        clock = meta.media.clock
        for pts, row in zip(meta.pts, values, strict=True):
            yield {"time": round(clock.seconds(pts), 6), **row}
