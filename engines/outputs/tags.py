"""tags: writes the tags or classes of each picture.

`<target>.json` is a list with a line a window, `{"time": seconds, "tags": [{"tag", "score", "category"}]}`, or a line
an image with its `name`; an image that failed has `error` and no tags. `csv = true` writes `<target>.csv`, a row a tag.

For images, `txt = true` writes the files that training of image models reads: one for each picture, with its tags in
one line between commas, without those of the category `without`; `spaces = true` writes spaces for underscores,
`escape = true` a backslash before parentheses, as prompts need it. `json_each = true` writes each
picture's line into a file of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from engines.encoding import Encoded
from engines.files import PartFile
from engines.options import Options
from engines.outputs.base import BaseFormat, check_rows, row_of
from engines.outputs.images import ImageFolder, join_files
from engines.outputs.jsonl import encoded_rows, rounded, rows_of
from engines.outputs.objects import label_of
from engines.outputs.tables import CsvFile
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import Tensor
from schemas.errors import OutputError, PipelineError
from schemas.media import MediaInfo
from schemas.model import describe
from schemas.parts import PartMeta
from schemas.segments import Fragment

_ARRAYS = ("tags", "classes")
# Tags that are faces keep their underscores: these, of https://huggingface.co/spaces/SmilingWolf/wd-tagger, and all of
# up to three characters, as in kohya-ss/sd-scripts.
_SHORT = 3
_FACES = frozenset((
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
    "o_o", "u_u", "x_x", "|_|", "||_||",
))  # fmt: skip


class TagsOptions(Options):
    """The files to write beside the json; `without` is the category that text files leave out."""

    csv: bool = False
    txt: bool = True
    json_each: bool = False
    spaces: bool = False
    escape: bool = False
    without: str = "rating"


class TagsFormat(BaseFormat[TagsOptions]):
    """A part's result is its lines, as one array `rows [bytes] uint8`; the files are made of them."""

    options_class = TagsOptions

    @property
    def each(self) -> tuple[str, ...]:
        """Return the suffixes of text files, and of json files by option."""
        return ("txt",) * self._options.txt + ("json",) * self._options.json_each

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check `tags` or `classes` of each window, `[W, M]`."""
        name = _array_in(arrays)
        found = arrays[name]
        if len(found.shape) != 2:
            what = f"`{name}` is {describe(found.dtype, found.shape)}"
            raise PipelineError(what, "format tags takes [W, M], numbers of labels")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines."""
        return encoded_rows(rows_of(part, self._values(part, tick)))

    def assemble(self, target: Path, media: MediaInfo) -> "TagsAssembler":
        """Start `<target>.json`, and the files that the options add."""
        return TagsAssembler(target, media, self._options)

    def _values(self, part: Part, tick: Tick) -> Iterator[dict[str, Any]]:
        windows = len(part.meta.pts)
        if not windows:
            return
        held: Mapping[str, Value] = part.arrays
        name = _array_in(held)
        for array in (name, "scores"):
            if array in held:
                check_rows(array, held[array], windows)
        for number in range(windows):
            scores = row_of(held["scores"], number) if "scores" in held else None
            yield {"tags": list(self._tags(name, row_of(held[name], number), scores))}
            tick()

    def _tags(self, name: str, numbers: Array, scores: Array | None) -> Iterator[dict[str, Any]]:
        """Yield the tags of a picture in order, each once: boxes of one class are one tag."""
        labels, categories = self._labels.get(name, ()), self._labels.get(f"{name}.categories", ())
        if numbers.ndim != 1 or (scores is not None and scores.shape != numbers.shape):
            what = f"a row of `{name}` has shape {list(numbers.shape)}"
            raise PipelineError(what, "format tags takes one number, and one score, for each tag")
        seen: set[int] = set()
        values = repeat(None) if scores is None else scores.tolist()
        for number, value in zip(numbers.tolist(), values, strict=False):
            if number in seen:
                continue
            seen.add(number)
            tag: dict[str, Any] = {"tag": label_of(labels, number)}
            if value is not None:
                tag["score"] = rounded(value)
            if 0 <= number < len(categories):
                tag["category"] = categories[number]
            yield tag


def _array_in(arrays: Mapping[str, object]) -> str:
    for name in _ARRAYS:
        if name in arrays:
            return name
    held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
    what = f"format tags needs `tags` or `classes`, the part holds {held}"
    raise PipelineError(what, "take a model whose card has a head that tags or classifies, or add `keeps`")


class TagsAssembler:
    """Writes each line as it comes, and adds it to the other files."""

    def __init__(self, target: Path, media: MediaInfo, options: TagsOptions) -> None:
        self.notes: list[str] = []
        self._options = options
        self._first = "time" if media.timed else "name"
        self._lines = 0
        self._file = PartFile.create(target.with_name(f"{target.name}.json"))
        self._file.write(b"[")
        self._table: CsvFile | None = None
        self._texts = ImageFolder(target, "txt") if options.txt and not media.timed else None
        self._each = ImageFolder(target, "json", alone=False) if options.json_each and not media.timed else None
        try:
            if options.csv:
                self._table = CsvFile(target, (self._first, "tag", "score", "category"))
        except Exception:
            self._file.discard()
            raise

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's lines. Raises OutputError."""
        texts, lines = [], []
        try:
            for line in arrays["rows"].tobytes().splitlines():
                self._file.write((b",\n" if self._lines else b"\n") + line)
                self._lines += 1
                row = json.loads(line)
                if "error" in row:
                    continue
                if self._table is not None:
                    self._table.write(
                        [row[self._first], tag["tag"], tag.get("score"), tag.get("category")] for tag in row["tags"]
                    )
                texts.append(self._text(row["tags"]))
                lines.append(line + b"\n")
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"a result of tags has a line of another form: {error}") from error
        for folder, files in ((self._texts, texts), (self._each, lines)):
            if folder is not None:
                folder.add(meta, join_files(files).arrays, facts)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: tags hold no sound."""

    def close(self) -> list[Path]:
        """Finish the files."""
        self._file.write(b"\n]\n")
        files = [self._file.commit()]
        if self._table is not None:
            files.append(self._table.close())
        return files + [path for folder in (self._texts, self._each) if folder is not None for path in folder.close()]

    def abort(self) -> None:
        """Remove the unfinished files."""
        self._file.discard()
        if self._table is not None:
            self._table.abort()
        for folder in (self._texts, self._each):
            if folder is not None:
                folder.abort()

    def _text(self, tags: Sequence[Mapping[str, Any]]) -> bytes:
        names = [str(tag["tag"]) for tag in tags if tag.get("category") != self._options.without]
        if self._options.spaces:
            names = [name if name in _FACES or len(name) <= _SHORT else name.replace("_", " ") for name in names]
        if self._options.escape:
            names = [name.replace("(", "\\(").replace(")", "\\)") for name in names]
        return ", ".join(names).encode()
