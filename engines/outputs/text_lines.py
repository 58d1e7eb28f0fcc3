"""text: writes text that models made or read.

Where parts have `text` alone, a text a window, it is written as it is: a `.txt` of each item, as `tags` writes them; of
media with times `<target>.txt`, where each text begins with the seconds and a tab, unless `times` is false.

Of lines of text in pictures `<target>.jsonl` has a line a window, `{"time": seconds, "width", "height", "lines":
[...]}`, or a line an image with its `name`; an image that failed has `error` and no lines. A line of text is `{"text",
"score", "box": [x1, y1, x2, y2], "corners"}`, in pixels of the upright source. The text alone is beside it: of images a
`.txt` each; of media with times `<target>.txt`, where each line begins with the seconds and a tab.
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
from engines.outputs.images import ImageFolder, files_in, join_files
from engines.outputs.jsonl import encoded_rows, rounded, rows_of
from engines.outputs.objects import Objects, check_objects, objects_of, source_sizes, text_of
from engines.part import Array, Part, Tick, no_tick
from engines.planned import UTF8, Tensor
from engines.ragged import Ragged
from engines.texts import TEXT
from schemas.errors import OutputError, PipelineError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment


class TextOptions(Options):
    """Lines with a score below `least_score` are left out, and so are those without text. `times`: of media with times,
    texts that stand alone begin with the seconds.
    """

    least_score: float = Field(default=0.5, ge=0, le=1)
    times: bool = True


class TextFormat(BaseFormat[TextOptions]):
    """A part's result is its lines of JSON, as one array `rows [bytes] uint8`, of which the text files are made.

    Where parts have `text` alone it is the files themselves, see `engines.outputs.images.join_files`.
    """

    options_class = TextOptions

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there is text, or boxes and the text that belongs to them."""
        if "boxes" not in arrays and TEXT in arrays and arrays[TEXT].text:
            return
        check_objects(arrays, TEXT)
        if TEXT not in arrays or not arrays[TEXT].labels:
            held = ", ".join(f"`{name}`" for name in arrays)
            raise PipelineError(
                f"format text needs `text`, the part holds {held}", "read it by a model with a head text"
            )

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines, or its texts."""
        if f"{TEXT}{UTF8}" in self._labels:
            return join_files(_texts(part))
        return encoded_rows(rows_of(part, self._values(part, tick)))

    def assemble(self, target: Path, media: MediaInfo) -> "TextAssembler":
        """Start the files."""
        return TextAssembler(target, media, self._options.times)

    def _values(self, part: Part, tick: Tick) -> Iterator[dict[str, Any]]:
        for (height, width), found in zip(source_sizes(part), objects_of(part, TEXT), strict=True):
            yield {"width": width or None, "height": height or None, "lines": list(self._lines(found))}
            tick()

    def _lines(self, found: Objects) -> Iterator[dict[str, Any]]:
        for number, box in enumerate(found.boxes.tolist()):
            text = "" if found.text is None else text_of(self._labels.get(TEXT, ()), found.text[number])
            score = 1.0 if found.scores is None else found.scores[number].item()
            if not text.strip() or not score >= self._options.least_score:
                continue
            line = {"text": text, "score": rounded(score), "box": rounded(box)}
            if found.corners is not None:
                line["corners"] = rounded(found.corners[number].tolist())
            yield line


class TextAssembler:
    """Writes each line of JSON as it comes, and the text in it; of texts alone there is no JSON."""

    def __init__(self, target: Path, media: MediaInfo, times: bool = True) -> None:
        self.notes: list[str] = []
        self._times = times
        self._target = target
        self._media = media
        self._json: PartFile | None = None
        self._alone = False
        self._files: ImageFolder | PartFile
        self._files = PartFile.create(_path(target, "txt")) if media.timed else ImageFolder(target, "txt")

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's lines. Raises OutputError."""
        if self._alone or "rows" not in arrays:
            self._alone = True
            self._write(meta, arrays)
            return
        data = arrays["rows"].tobytes()
        try:
            rows = [json.loads(line) for line in data.splitlines()]
            texts = [_plain(row) for row in rows if "error" not in row]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"a result of text has a line of another form: {error}") from error
        self._lines().write(data)
        if isinstance(self._files, PartFile):
            self._files.write(b"".join(texts))
        else:
            self._files.add(meta, join_files(texts).arrays, facts)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: text files hold no sound."""

    def close(self) -> list[Path]:
        """Finish the files."""
        files = [] if self._alone else [self._lines().commit()]
        return files + ([self._files.commit()] if isinstance(self._files, PartFile) else self._files.close())

    def abort(self) -> None:
        """Remove the unfinished files."""
        if self._json is not None:
            self._json.discard()
        if isinstance(self._files, PartFile):
            self._files.discard()
        else:
            self._files.abort()

    def _lines(self) -> PartFile:
        self._json = self._json or PartFile.create(_path(self._target, "jsonl"))
        return self._json

    def _write(self, meta: PartMeta, arrays: Mapping[str, Array]) -> None:
        if isinstance(self._files, ImageFolder):
            self._files.add(meta, arrays, {})
            return
        texts, seconds = files_in(arrays), self._media.clock.seconds
        for pts, text in zip(meta.pts, texts, strict=True):
            begin = f"{round(seconds(pts), 6)}\t" if self._times else ""
            self._files.write(begin.encode() + bytes(text) + b"\n")


def _path(target: Path, suffix: str) -> Path:
    return target.with_name(f"{target.name}.{suffix}")


def _texts(part: Part) -> list[bytes]:
    """Return the text of each window. Raises PipelineError if a part has none."""
    text, windows = part.arrays.get(TEXT), len(part.meta.pts)
    if text is None and not windows:
        return []
    if not isinstance(text, Ragged) or len(text) != windows:
        raise PipelineError(f"a part of {windows} windows does not have `text` for each", "read or make it by a model")
    return [text.row(number).tobytes() for number in range(windows)]


def _plain(row: Mapping[str, Any]) -> bytes:
    """Return the text of a line of JSON."""
    start = f"{row['time']}\t" if "time" in row else ""
    return "".join(f"{start}{line['text']}\n" for line in row["lines"]).encode()
