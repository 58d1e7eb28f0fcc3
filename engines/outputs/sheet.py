"""Draws a contact sheet: a title, and sections of pictures in a grid with a few words below each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from engines.outputs.text import font, one_line, text_width
from engines.part import Array

Rgb: TypeAlias = tuple[int, int, int]
Words: TypeAlias = tuple[tuple[str, Rgb], ...]
"""One line of text: words, each in its colour."""

PAPER: Rgb = (20, 21, 24)
BLANK: Rgb = (44, 46, 52)
BRIGHT: Rgb = (232, 232, 236)
DIM: Rgb = (148, 150, 158)
MARK: Rgb = (240, 178, 70)

MARGIN, GAP, HEAD = 24, 14, 48  # pixels around the sheet, between tiles, and of the title with the line below it
LABEL, LABEL_GAP = 18, 6  # height of a line below a picture, and the space above the first one
_SECTION_HEAD = 24
_TITLE, _HEADING, TEXT = 19, 17, 13  # pixels of the font


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture, `[H, W, 3] uint8` RGB and no larger than the sheet's box, and the lines below it."""

    picture: Array | None
    lines: tuple[Words, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Tiles in one group, below a heading if there is one."""

    tiles: Sequence[Tile]
    heading: Words = ()

    def height(self, columns: int, cell_height: int) -> int:
        """Return the pixels from the top of the section to the top of the next one."""
        return (_SECTION_HEAD if self.heading else 0) + ceil(len(self.tiles) / columns) * cell_height


@dataclass(frozen=True, slots=True)
class Layout:
    """The grid: `box` is the largest height and width of a picture; a cell is `cell_width` wide, or as the box."""

    columns: int
    box: tuple[int, int]
    lines: int
    cell_width: int = 0

    @property
    def pitch(self) -> tuple[int, int]:
        """Pixels from one tile to the next, down and across."""
        height, width = self.box
        return height + LABEL_GAP + self.lines * LABEL + GAP, max(width, self.cell_width) + GAP


def draw_sheet(title: str, subtitle: str, sections: Sequence[Section], layout: Layout) -> Array:
    """Return the sheet, `[H, W, 3] uint8` RGB."""
    height, width = layout.pitch
    inner = layout.columns * width - GAP
    tops = list(accumulate((each.height(layout.columns, height) for each in sections), initial=MARGIN + HEAD))
    image = Image.new("RGB", (inner + 2 * MARGIN, tops[-1] - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    _write(draw, (MARGIN, MARGIN - 5), ((title, BRIGHT),), _TITLE, inner)
    _write(draw, (MARGIN, MARGIN + 21), ((subtitle, DIM),), TEXT, inner)
    for section, top in zip(sections, tops, strict=False):
        if section.heading:
            _write(draw, (MARGIN, top - 4), section.heading, _HEADING, inner)
            top += _SECTION_HEAD
        for (down, across), tile in zip(_places(layout.columns), section.tiles, strict=False):
            _draw_tile(image, draw, (MARGIN + across * width, top + down * height), tile, layout)
    return np.asarray(image)


def _places(columns: int) -> Iterator[tuple[int, int]]:
    down = 0
    while True:
        yield from ((down, across) for across in range(columns))
        down += 1


def _draw_tile(
    image: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: Tile, layout: Layout
) -> None:
    (left, top), (height, width) = corner, layout.box
    draw.rectangle((left, top, left + width - 1, top + height - 1), BLANK)
    if tile.picture is None:
        draw.text((left + width // 2, top + height // 2), "no picture", DIM, font(TEXT), anchor="mm")
    else:
        picture = Image.fromarray(tile.picture)
        image.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
    for number, words in enumerate(tile.lines):
        _write(draw, (left, top + height + LABEL_GAP + number * LABEL), words, TEXT, layout.pitch[1] - GAP)


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], words: Words, size: int, width: int) -> None:
    """Draw a line of text whose upper left corner is `corner`, cut after `width` pixels."""
    left, end = corner[0], corner[0] + width
    for text, colour in words:
        text = one_line(text, size, end - left)
        draw.text((left, corner[1]), text, colour, font(size))
        left += text_width(text, size)
