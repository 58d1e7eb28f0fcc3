"""Draws subtitles on pictures: white text with a black outline, at most a few lines, wrapped to the picture's width."""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from engines.outputs.cues import Cue
from engines.outputs.draw import BLACK, WHITE, Canvas
from engines.outputs.surfaces import OPAQUE
from engines.outputs.text import font, one_line, text_width
from engines.part import Array
from schemas.text import printable

Place: TypeAlias = Literal["bottom", "top"]
_USED = 0.92  # of the picture's width
_LEAST_PX = 8
_SHRINKS = 6  # how often a text that does not fit is made smaller by a tenth, before it is cut
_STROKE = 12  # the outline is as wide as one of so many parts of the text's size


@dataclass(frozen=True, slots=True)
class CaptionStyle:
    """`size` of the text and `margin` to the edge in percent of the picture's shorter side; most `lines` of a cue."""

    size: float
    margin: float
    place: Place
    lines: int


class _Block(NamedTuple):
    """The masks `[h, w]` of a cue's outline and of its text."""

    outline: Array
    text: Array


class Captions:
    """The cues of a film, drawn on its pictures by their times. Can be used by several threads.

    A cue is shown from its start to before its end, in seconds. Cues of the same time stand above each other, the one
    that began first nearest to the edge. `aspect` is the shape of a pixel: width by height.
    """

    def __init__(self, cues: Iterable[Cue], style: CaptionStyle, aspect: Fraction = Fraction(1)) -> None:
        self._cues = sorted(cues, key=lambda cue: cue.start)
        self._starts = [cue.start for cue in self._cues]
        self._latest = list(accumulate((cue.end for cue in self._cues), max))  # the latest end of a cue and all before
        self._style, self._aspect = style, aspect or Fraction(1)

    def draw(self, canvas: Canvas, second: float) -> None:
        """Draw the cues of that time."""
        style, side = self._style, min(canvas.height, canvas.width)
        size, margin = max(_LEAST_PX, round(side * style.size / 100)), round(side * style.margin / 100)
        edge = margin
        for cue in reversed(list(self._shown(second))):
            block = _block(cue.lines, size, canvas.width, style.lines, self._aspect)
            height, width = block.text.shape
            top = edge if style.place == "top" else canvas.height - edge - height
            left = (canvas.width - width) // 2
            canvas.blend(top, left, block.outline, BLACK)
            canvas.blend(top, left, block.text, WHITE)
            edge += height

    def _shown(self, second: float) -> Iterator[Cue]:
        """Yield the cues of that time, the last one first."""
        number = bisect_right(self._starts, second) - 1
        while number >= 0 and self._latest[number] > second:
            if self._cues[number].end > second:
                yield self._cues[number]
            number -= 1


def wrapped(lines: Sequence[str], size: int, width: int, most: int) -> tuple[int, tuple[str, ...]]:
    """Return the size of a font, and a cue's lines at that size, at most `most` of at most `width` pixels.

    Lines that fit stay. Others are broken anew, at a smaller size if they need one; what is left over ends in dots.
    """
    lines = [unicodedata.normalize("NFC", printable(line)) for line in lines]
    if len(lines) <= most and all(text_width(line, size) <= width for line in lines):
        return size, tuple(lines)
    text, found = _joined(lines), [""]
    for step in range(_SHRINKS + 1):
        smaller = max(_LEAST_PX, round(size * 0.9**step))
        found = _broken(text, smaller, width)
        if len(found) <= most:
            break
    kept = found[: most - 1] + ([" ".join(found[most - 1 :])] if len(found) >= most else [])
    return smaller, tuple(one_line(line, smaller, width) for line in kept)


def _joined(lines: Sequence[str]) -> str:
    """The text of lines; between two letters of Chinese or Japanese is no space."""
    text = ""
    for line in lines:
        close = text and line and all(unicodedata.east_asian_width(each) in "WF" for each in (text[-1], line[0]))
        text += line if close or not text else f" {line}"
    return text


def _broken(text: str, size: int, width: int) -> list[str]:
    """Break a text at spaces, and words that are wider than a line at letters."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word if text_width(word, size) > width else [word]:
            if lines[-1] and text_width(lines[-1] + letter, size) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@lru_cache(maxsize=64)
def _block(lines: tuple[str, ...], size: int, width: int, most: int, aspect: Fraction) -> _Block:
    """The masks of a cue, for a picture of `width` pixels of that shape."""
    size, lines = wrapped(lines, size, int(width * aspect * Fraction(_USED)), most)
    face, stroke = font(size), max(1, round(size / _STROKE))
    line_height = sum(face.getmetrics())
    widths = [text_width(line, size) for line in lines]
    shape = max(widths, default=0) + 2 * stroke, max(1, line_height * len(lines)) + 2 * stroke
    masks = []
    for border in (stroke, 0):
        picture = Image.new("L", shape)
        pen = ImageDraw.Draw(picture)
        for number, line in enumerate(lines):
            place = (shape[0] - widths[number]) // 2, stroke + number * line_height
            pen.text(place, line, OPAQUE, face, stroke_width=border)
        if aspect != 1:
            picture = picture.resize((max(1, round(shape[0] / aspect)), shape[1]), Image.Resampling.BILINEAR)
        masks.append(np.asarray(picture))
    return _Block(*masks)
