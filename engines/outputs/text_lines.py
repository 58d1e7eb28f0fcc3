"""text: writes the lines of text that were read.

`<target>.jsonl` has a line a window, `{"time": seconds, "width", "height", "lines": [...]}`, or a line an image with
its `name`; an image that failed has `error` and no lines. A line of text is `{"text", "score", "box": [x1, y1, x2, y2],
"corners"}`, in pixels of the upright source. The text alone is beside it: of images a `.txt` each, as `tags` writes
them; of media with times `<target>.txt`, where each line begins with the seconds and a tab.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from engines.encoding import Encoded
from engines.files import PartFile
from engines.options import Options
from engines.outputs.base import BaseFormat
from engines.outputs.images import ImageFolder, join_files
from engines.outputs.jsonl import encoded_rows, rounded, rows_of
from engines.outputs.objects import Objects, check_objects, objects_of, source_sizes, text_of
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from schemas.errors import OutputError, PipelineError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_NAME = "text"


class TextOptions(Options):
    """Lines with a score below `least_score` are left out, and so are those without text."""

    least_score: float = Field(default=0.5, ge=0, le=1)


class TextFormat(BaseFormat[TextOptions]):
    """A part's result is its lines of JSON, as one array `rows [bytes] uint8`; the text files are made of them."""

    options_class = TextOptions

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check the boxes, and the text that belongs to them."""
        check_objects(arrays, _NAME)
        if "text" not in arrays or not arrays["text"].labels:
            held = ", ".join(f"`{name}`" for name in arrays)
            raise PipelineError(
                f"format text needs `text`, the part holds {held}", "read it by a model with a head text"
            )

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines."""
        return encoded_rows(rows_of(part, self._values(part, tick)))

    def assemble(self, target: Path, media: MediaInfo) -> "TextAssembler":
        """Start the files."""
        return TextAssembler(target, media)

    def _values(self, part: Part, tick: Tick) -> Iterator[dict[str, Any]]:
        for (height, width), found in zip(source_sizes(part), objects_of(part, _NAME), strict=True):
            yield {"width": width or None, "height": height or None, "lines": list(self._lines(found))}
            tick()

    def _lines(self, found: Objects) -> Iterator[dict[str, Any]]:
        for number, box in enumerate(found.boxes.tolist()):
            text = "" if found.text is None else text_of(self._labels.get("text", ()), found.text[number])
            score = 1.0 if found.scores is None else found.scores[number].item()
            if not text.strip() or not score >= self._options.least_score:
                continue
            line = {"text": text, "score": rounded(score), "box": rounded(box)}
            if found.corners is not None:
                line["corners"] = rounded(found.corners[number].tolist())
            yield line


class TextAssembler:
    """Writes each line of JSON as it comes, and the text in it."""

    def __init__(self, target: Path, media: MediaInfo) -> None:
        self.notes: list[str] = []
        self._file = PartFile.create(target.with_name(f"{target.name}.jsonl"))
        self._folder: ImageFolder | None = None
        self._text: PartFile | None = None
        try:
            if media.timed:
                self._text = PartFile.create(target.with_name(f"{target.name}.txt"))
            else:
                self._folder = ImageFolder(target, "txt")
        except Exception:
            self._file.discard()
            raise

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's lines. Raises OutputError."""
        data = arrays["rows"].tobytes()
        try:
            rows = [json.loads(line) for line in data.splitlines()]
            texts = [_plain(row) for row in rows if "error" not in row]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"a result of text has a line of another form: {error}") from error
        self._file.write(data)
        if self._text is not None:
            self._text.write(b"".join(texts))
        if self._folder is not None:
            self._folder.add(meta, join_files(texts).arrays, facts)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: text files hold no sound."""

    def close(self) -> list[Path]:
        """Finish the files."""
        files = [self._file.commit()]
        if self._text is not None:
            files.append(self._text.commit())
        return files + (self._folder.close() if self._folder is not None else [])

    def abort(self) -> None:
        """Remove the unfinished files."""
        self._file.discard()
        if self._text is not None:
            self._text.discard()
        if self._folder is not None:
            self._folder.abort()


def _plain(row: Mapping[str, Any]) -> bytes:
    """Return the text of a line of JSON."""
    start = f"{row['time']}\t" if "time" in row else ""
    return "".join(f"{start}{line['text']}\n" for line in row["lines"]).encode()
