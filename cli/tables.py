"""Tables that fit their window: names are shortened, sentences go on below themselves, and no column is left out.

Numbers, states and paths are neither shortened nor broken.
Where even the shortest names leave no room for a row in one line, each row is a few lines of `title value`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, TypeAlias

from rich.cells import cell_len, get_character_cell_size
from rich.text import Text

from cli.text import cell

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

LONG_NAME, SHORT_NAME = 16, 10  # columns of what names a row: it is shortened to the second one at last
SHORT_TEXT = 6  # columns of other text that may be shortened
INDENT = "  "
LEAST_ROOM = 20  # columns of a text behind labels
Given: TypeAlias = "str | Text | Sequence[str]"  # several texts: paths, which are neither shortened nor broken


@dataclass(frozen=True, slots=True)
class Value:
    """One cell. `least`: the columns that it needs at least; `parts`: the paths that it is made of."""

    text: Text
    least: int
    parts: tuple[Text, ...] = ()

    @property
    def width(self) -> int:
        """The columns that it needs in one line, in full."""
        return text_width(self.text)

    @property
    def is_sentence(self) -> bool:
        """Whether it may go on below itself."""
        return self.text.overflow == "fold"

    def lines(self, width: int, middle: bool) -> tuple[Text, ...]:
        """Its lines in so many columns: a path more in each, those of a sentence, or one that may be shortened."""
        if self.is_sentence:
            return tuple(wrapped(self.text, width))
        return self.parts if self.parts and self.width > width else (shortened(self.text, width, middle),)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, whether its cells are words or numbers, and whether they name their rows."""

    title: str
    words: bool
    names: bool = False

    def value(self, given: Given) -> Value:
        """One of its cells, from what a command has."""
        if not isinstance(given, str | Text):
            parts = tuple(cell(each) for each in given)
            return Value(Text(", ").join(parts), max(map(text_width, parts), default=0), parts)
        text = cell(given) if isinstance(given, str) else given
        width = text_width(text)
        if text.overflow == "fold":
            longest = max(map(cell_len, text.plain.split()), default=0)
            return Value(text, max(longest, min(width, LEAST_ROOM)))
        least = SHORT_NAME if self.names else SHORT_TEXT
        return Value(text, min(width, least) if text.overflow == "ellipsis" else width)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table, as `rich` prints it; in the window that there is when it is printed."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    gap: int = 1

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator[Text]:
        """Lines of the table. One is longer than the window only where an id or a path is."""
        for line in self._lines(options.max_width):
            line.no_wrap, line.overflow = True, "ignore"
            yield line

    def _lines(self, room: int) -> Iterator[Text]:
        widths = self._widths(room - self.gap * (len(self.columns) - 1))
        return self._blocks(room) if widths is None else self._table(widths)

    def _widths(self, room: int) -> list[int] | None:
        """The columns of each column; None if they have no room, or if two names would look alike."""
        titles = [text_width(Text(each.title)) for each in self.columns]
        made = [[row[number] for row in self.rows] for number in range(len(titles))]
        natural = [max([title, *(value.width for value in values)]) for title, values in zip(titles, made, strict=True)]
        least = [max([title, *(value.least for value in values)]) for title, values in zip(titles, made, strict=True)]
        first = [
            max(low, min(high, LONG_NAME)) if each.names else low
            for each, low, high in zip(self.columns, least, natural, strict=True)
        ]
        widths = fitted(natural, first, room) or fitted(first, least, room)
        if widths is None or any(
            len({shortened(value.text, width, each.names).plain for value in values})
            < len({value.text.plain for value in values})
            for each, width, values in zip(self.columns, widths, made, strict=True)
            if each.names
        ):
            return None
        return widths

    def _table(self, widths: list[int]) -> Iterator[Text]:
        if any(each.title for each in self.columns):
            yield self._line([Text(each.title, "bold") for each in self.columns], widths)
        for row in self.rows:
            made = (
                value.lines(width, each.names) for each, value, width in zip(self.columns, row, widths, strict=True)
            )
            for texts in zip_longest(*made, fillvalue=Text()):
                yield self._line(texts, widths)

    def _line(self, texts: Sequence[Text], widths: list[int]) -> Text:
        line = Text()
        for each, text, width in zip(self.columns, texts, widths, strict=True):
            blanks = " " * (width - text_width(text))
            line.append_text(text).append(blanks) if each.words else line.append(blanks).append_text(text)
            line.append(" " * self.gap)
        line.rstrip()
        return line

    def _blocks(self, room: int) -> Iterator[Text]:
        for row in self.rows:
            line = Text()
            for each, value in zip(self.columns, row, strict=True):
                for field in _fields(each, value, room):
                    before = Text(", ") if line.plain.strip() else Text()
                    if not line.plain:
                        line = field
                    elif text_width(line) + text_width(before) + text_width(field) <= room:
                        line = line + before + field
                    else:
                        yield line
                        *full, last = wrapped(field, room - len(INDENT)) if value.is_sentence else [field]
                        yield from (Text(INDENT) + each for each in full)
                        line = Text(INDENT) + last
            yield line


@dataclass(frozen=True, slots=True)
class Paragraphs:
    """Lines of labels and a text, as `rich` prints them: a text is broken between words, and goes on below itself."""

    rows: tuple[tuple[Text, ...], ...]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator[Text]:
        """Lines; one is longer than the window only where a word is, as a path."""
        widths = [max(map(text_width, labels)) for labels in zip(*(row[:-1] for row in self.rows), strict=True)]
        before = sum(widths) + 2 * len(widths)
        for *labels, text in self.rows:
            text.overflow = "ignore"
            label = Text()
            for each, width in zip(labels, widths, strict=True):
                label.append_text(each).append(" " * (width - text_width(each) + 2))
            for line in text.wrap(console, max(LEAST_ROOM, options.max_width - before)) or [Text()]:
                line.rstrip()
                shown = label + line
                shown.no_wrap, shown.overflow = True, "ignore"
                yield shown
                label = Text(" " * before)


def _fields(column: Column, value: Value, room: int) -> Iterator[Text]:
    """`title value`; each of several paths by itself. What may be shortened is, to a line of its own."""
    for part in value.parts or ((value.text,) if value.text.plain else ()):
        title = Text(f"{column.title} " if column.title else "", "bold")
        left = room - len(INDENT) - text_width(title)
        least = max(value.least, min(left, text_width(part)))
        yield title + (part if value.parts or value.is_sentence else shortened(part, least, column.names))


def text_width(text: Text) -> int:
    """The columns that a text needs; Chinese letters need two each."""
    return cell_len(text.plain)


def shortened(text: Text, width: int, middle: bool) -> Text:
    """A text in so many columns, with an ellipsis for what is left out: its middle, or its end."""
    if text_width(text) <= width:
        return text
    widths = [get_character_cell_size(each) for each in text.plain]
    tail = _count(reversed(widths), (width - 1) // 2) if middle else 0
    head = _count(widths, width - 1 - sum(widths[len(widths) - tail :]))
    return text[:head].append("…").append_text(text[len(widths) - tail :])


def wrapped(text: Text, width: int) -> list[Text]:
    """A text in lines of so many columns, broken between words; a longer word has a line of its own."""
    lines, start, end = [], 0, 0
    for word in re.finditer(r"\S+", text.plain):
        if end and cell_len(text.plain[start : word.end()]) > width:
            lines.append(text[start:end])
            start = word.start()
        end = word.end()
    return [*lines, text[start:end]]


def _count(widths: Iterable[int], room: int) -> int:
    """How many of these letters have room."""
    return sum(taken <= room for taken in accumulate(widths))


def fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """Widths that fit: the widest columns are made narrower first. None if the least ones have no room."""
    if sum(least) > room:
        return None
    widths = list(natural)
    while sum(widths) > room:
        widest = max((n for n, width in enumerate(widths) if width > least[n]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def paragraphs(rows: Iterable[Sequence["str | Text"]]) -> Paragraphs:
    """Labels and a text in each row: what has a title, a state or a number, and the sentences about it."""
    return Paragraphs(tuple(tuple(cell(each) if isinstance(each, str) else each for each in row) for row in rows))


def list_of(
    titles: Sequence[str],
    rows: Iterable[Sequence[Given]],
    left: int = 0,
    unless: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
    named: Sequence[str] = (),
    gap: int = 1,
) -> Rows:
    """A table with one line for each row; in a narrow window the cells that are `one_line` are shortened.

    The first `left` columns and those of `words` are words, the others numbers. A column of `unless` is left out where
    all its cells are empty or have that text: it says nothing. Those of `named` name their rows: they keep both ends,
    stay longer than others, and never look alike where they differ.
    """
    columns = [Column(title, number < left or title in words, title in named) for number, title in enumerate(titles)]
    given = [[column.value(each) for column, each in zip(columns, row, strict=True)] for row in rows]
    said = unless or {}
    kept = [
        number
        for number, title in enumerate(titles)
        if title not in said or any(row[number].text.plain not in ("", said[title]) for row in given)
    ]
    return Rows(tuple(columns[n] for n in kept), tuple(tuple(row[n] for n in kept) for row in given), gap)
