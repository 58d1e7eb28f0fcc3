"""text: files of UTF-8, an item each, and files of JSON lines, an item a line."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from engines.mapped import BufferReader
from engines.media.albums import albums
from engines.media.container import open_file, open_regular
from engines.media.decode import Convert
from engines.media.last import marked_last
from engines.media.limits import Limits
from engines.media.medium import BaseMedium, DecodePlace, Input, Match, SplitRequest
from engines.media.segment_data import SegmentData
from engines.media.sniff import image_format
from engines.media.source import media_errors
from engines.media.text_items import BOM, MOST_BYTES, checked_line, plain_text, read_item
from engines.options import Options
from engines.part import Part, Tick, no_tick
from engines.planned import Arrays, DecodePlan
from engines.sentences import MOST, sentences
from engines.texts import REQUEST, TEXT, text_rows, text_tensor
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.grid import Grid
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer

_PLAIN, _LINES = (".txt", ".md"), (".jsonl", ".ndjson")


class TextOptions(Options):
    """`pieces` "sentences": each sentence of a file that is no lines is an item of the file's name.

    `items` of a segment are few, because the work on a text takes long, and other workers shall have some of it.
    """

    pieces: Literal["whole", "sentences"] = "whole"
    items: int = Field(default=4, ge=1, le=64)


class Text(BaseMedium[TextOptions]):
    """Decoded parts have `text`, a row an item, and `request`, the JSON of items that are lines; empty for others."""

    kind = "text"
    timed = False
    options_class = TextOptions

    def sniff(self, head: bytes, given: Input) -> Match:
        """By the name; what has another name may be text if it begins with UTF-8 without control characters."""
        suffix = _suffix(given)
        if suffix in _PLAIN + _LINES:
            return Match.CERTAIN
        return Match.BESIDE if image_format(head) is None and _is_text(head) else Match.NO

    def has_items(self, given: Input) -> bool:
        """Return whether it has lines."""
        return _has_lines(given)

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """A line that is no request, and a file that cannot be read, is a failed item."""
        items = _counted(_items(inputs, self._options.pieces == "sentences"), request.limits)
        for (group, buffers), final in marked_last(albums(items, most=self._options.items)):
            media = MediaInfo(kind=self.kind, timed=False, name=group[0].name)
            yield SegmentData(media, tuple(buffers), final, items=tuple(group))

    def plan(self, grid: Grid) -> Arrays:
        """Return `text` and `request`. There are no windows: a grid is ignored."""
        return {TEXT: text_tensor(), REQUEST: text_tensor()}

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Yield one part. Raises MediaError for a segment without buffers."""
        if len(buffers) != len(segment.items):
            raise MediaError("a segment of text names files, and has no text", "publish the file again")
        items: list[Item] = []
        rows: list[tuple[str, bytes]] = []
        for item, data in zip(segment.items, buffers, strict=True):
            try:
                if not item.error:
                    rows.append(read_item(item, data))
                items.append(item)
            except RigflowError as error:
                items.append(item.model_copy(update={"error": str(error)}))
            tick()
        meta = PartMeta(
            key=segment.key.model_copy(update={"part": 0, "last": True}),
            media=segment.media,
            pts=(0,) * len(rows),
            items=tuple(items),
            frames=len(rows),
            lost=len(items) - len(rows),
        )
        arrays = {TEXT: text_rows([text for text, _ in rows]), REQUEST: text_rows([line for _, line in rows])}
        yield Part(meta, dict(arrays))


def _items(inputs: Sequence[Input], cut: bool) -> Iterator[tuple[Item, Buffer]]:
    for number, given in enumerate(inputs):
        try:
            with media_errors(given.name):
                yield from _lines(given) if _has_lines(given) else _plain(given, number if cut else None)
        except RigflowError as error:
            yield Item(name=given.name, error=str(error)), b""


def _plain(given: Input, number: int | None) -> Iterator[tuple[Item, Buffer]]:
    """Yield a file as one item; with a `number`, which is that of its pieces, as one of each sentence.

    A text without letters and digits is one item.
    """
    data = _content(given)
    text = plain_text(data)
    item = Item(name=given.name, piece_of=number)
    found = [] if number is None else sentences(text)
    yield from ((item, each.encode()) for each in found)
    if not found:
        yield item, data if number is None else text[:MOST].encode()


def _content(given: Input) -> Buffer:
    data: Buffer
    if isinstance(given.source, Path):
        file, size = open_regular(given.source)
        with os.fdopen(file, "rb") as opened:
            _check_size(given.name, size)
            data = opened.read()
    else:
        data = given.source
    _check_size(given.name, len(data))
    return data


def _lines(given: Input) -> Iterator[tuple[Item, Buffer]]:
    """Yield an item for each line that is not blank. A file without any is one failed item."""
    stem, found = PurePosixPath(given.name).stem, False
    for number, line in enumerate(_raw_lines(given), 1):
        if not line.strip():
            continue
        found = True
        try:
            yield checked_line(line, f"{stem}-{number}"), line
        except RigflowError as error:
            yield Item(name=f"{stem}-{number}", line=True, error=f"line {number}: {error}"), b""
    if not found:
        raise MediaError("it has no lines", "write a JSON object on each")


def _raw_lines(given: Input) -> Iterator[bytes]:
    """Yield the lines of a file without their ends; one that is too long is cut after `MOST_BYTES + 1` bytes."""
    if isinstance(given.source, Path):
        with open_file(given.source) as file, os.fdopen(os.dup(file), "rb") as opened:
            yield from _read_lines(opened)
    else:
        yield from _read_lines(io.BufferedReader(BufferReader(given.source)))


def _read_lines(opened: io.BufferedIOBase) -> Iterator[bytes]:
    first = True
    while line := opened.readline(MOST_BYTES + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := opened.readline(MOST_BYTES)):
            pass
        yield line.removeprefix(BOM) if first else line
        first = False


def _counted(items: Iterator[tuple[Item, Buffer]], limits: Limits) -> Iterator[tuple[Item, Buffer]]:
    """Yield items as they are. Raises ItemTooLarge if there are more than a job may have."""
    for number, each in enumerate(items, 1):
        if number > limits.windows:
            what = f"a job of text has more than {limits.windows} items"
            raise ItemTooLarge(what, "cut the file, or raise the setting max_windows")
        yield each


def _has_lines(given: Input) -> bool:
    """Return whether a source has JSON lines: by its name, and without one of a text by its first character."""
    suffix = _suffix(given)
    if suffix in _PLAIN + _LINES:
        return suffix in _LINES
    head = b"" if isinstance(given.source, Path) else bytes(given.source[:512])
    return head.removeprefix(BOM).lstrip().startswith(b"{")


def _suffix(given: Input) -> str:
    return PurePosixPath(given.name).suffix.lower()


def _is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file may be UTF-8 text; the last character may be cut."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode()
    return all(each.isprintable() or each.isspace() or each in "\ufeff\x1b" for each in text) and bool(text)


def _check_size(name: str, size: int) -> None:
    if size > MOST_BYTES:
        what = f"{name} has {size} bytes, and a text has at most {MOST_BYTES}"
        raise ItemTooLarge(what, "cut it, or write an item a line in a .jsonl file")
