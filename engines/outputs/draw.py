"""Draws on the planes of one picture, YCbCr or RGB, without conversion to another colour space.

A shape is a mask: for each pixel the share of the shape's colour. On subsampled planes it is the mean of the pixels
that share a sample. There, boxes and their labels begin and end with a sample, so that their colours are pure and have
no seams.
"""

import colorsys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from engines.encoding import Colour
from engines.media.colours import BT709, FULL, source_matrix
from engines.outputs.surfaces import OPAQUE, Surface
from engines.outputs.text import font, text_width
from engines.part import Array

Rgb: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Paint: TypeAlias = Callable[[Rgb], tuple[int, ...]]
"""From a colour to its value in each plane."""

WHITE: Rgb = (255, 255, 255)
BLACK: Rgb = (0, 0, 0)
GRAY: Rgb = (160, 160, 160)
_GOLDEN = 0.618033988749895  # steps of the golden ratio around the circle of hues: neighbours differ most
# shares of red and blue in luma, by FFmpeg's number of the matrix; ITU-R BT.709, BT.601, BT.2020, FCC, SMPTE 240M
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
_LUMA |= {9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}


@lru_cache(maxsize=1024)
def class_colour(number: int) -> Rgb:
    """Return the colour of a class: always the same for a number, and clearly different from its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((0.03 + number * _GOLDEN) % 1, 0.78, 0.97)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(paper: Rgb) -> Rgb:
    """Return black or white, whichever is more readable on `paper`."""
    return BLACK if luma(paper) > 140 else WHITE


def luma(colour: Rgb) -> float:
    """Return the brightness of a colour, 0 to 255, by BT.601."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def ycbcr_paint(colour: Colour, height: int) -> Paint:
    """Return the paint for pictures of `height` lines with these colours. Source: ITU-R BT.709-6, section 3."""
    red_part, blue_part = _LUMA.get(source_matrix(colour.space, height), _LUMA[BT709])
    full = colour.range == FULL
    luma_scale, chroma_scale, black = (255, 255, 0) if full else (219, 224, 16)

    def paint(rgb: Rgb) -> tuple[int, ...]:
        red, green, blue = (value / 255 for value in rgb)
        bright = red_part * red + (1 - red_part - blue_part) * green + blue_part * blue
        blueness, redness = (blue - bright) / (2 - 2 * blue_part), (red - bright) / (2 - 2 * red_part)
        values = black + luma_scale * bright, 128 + chroma_scale * blueness, 128 + chroma_scale * redness
        return tuple(min(max(round(value), 0), 255) for value in values)

    return paint


def channel_paint(channels: int) -> Paint:
    """Return the paint for images of 1 channel (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA)."""

    def paint(rgb: Rgb) -> tuple[int, ...]:
        values = rgb if channels > 2 else (round(luma(rgb)),)
        return (*values, OPAQUE) if channels in (2, 4) else values

    return paint


class Canvas:
    """Draws on one picture. The first plane of `surface` has a sample for each pixel."""

    def __init__(self, surface: Surface, paint: Paint) -> None:
        self._surface = surface
        sizes = surface.sizes
        self.height, self.width = sizes[0]
        self._paint = paint
        self._planes = [
            (number, 1 if height == self.height else 2, 1 if width == self.width else 2)
            for number, (height, width) in enumerate(sizes)
        ]
        self._step = max(max(down, across) for _, down, across in self._planes)

    def snapped(self, value: int) -> int:
        """Return the nearest row or column at which samples of all planes begin."""
        return round(value / self._step) * self._step

    @property
    def line_width(self) -> int:
        """Width of a line that is clearly visible at this size, in pixels."""
        return max(2, self.snapped(round((self.height + self.width) * 0.0015)))

    @property
    def text_size(self) -> int:
        """Size of a font that is readable at this size, in pixels."""
        return max(12, round(min(self.height, self.width) / 40))

    def blend(self, top: int, left: int, mask: Array, colour: Rgb) -> None:
        """Mix in a colour; `mask [h, w]` uint8 is 0 for no change and 255 for the colour alone.

        Parts outside the picture are left out.
        """
        upper, lower = max(top, 0), min(top + mask.shape[0], self.height)
        first, last = max(left, 0), min(left + mask.shape[1], self.width)
        if upper >= lower or first >= last:
            return
        mask = mask[upper - top : lower - top, first - left : last - left]
        if self._step > 1:  # at an odd border, the last sample has one row or column of pixels
            beyond = (int(lower == self.height), int(last == self.width))
            mask = np.pad(mask, ((0, beyond[0]), (0, beyond[1])), mode="edge")
        for (plane, down, across), value in zip(self._planes, self._paint(colour), strict=False):
            share = _shared(mask, upper % down, first % across, down, across)
            top, left = upper // down, first // across
            height, width = self._surface.sizes[plane]
            self._surface.mix(plane, top, left, share[: height - top, : width - left], value)

    def tint(self, classes: Array, colours: tuple[Rgb | None, ...], strength: int) -> None:
        """Mix in the colour of each pixel's class, `classes [H, W]` uint8; None: the class changes nothing."""
        shares = np.array([0 if colour is None else strength for colour in colours], np.uint8)
        values = np.array([self._paint(colour or BLACK) for colour in colours], np.uint8)
        for (plane, down, across), each in zip(self._planes, values.T, strict=False):
            self._surface.tint(plane, classes, (down, across), each, shares)

    def rectangle(self, top: int, left: int, bottom: int, right: int, colour: Rgb, strength: int = OPAQUE) -> None:
        """Fill the pixels from (top, left) to before (bottom, right)."""
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, self.height), min(right, self.width)
        if bottom <= top or right <= left:
            return
        edges = [top, left, bottom if bottom < self.height else 0, right if right < self.width else 0]
        if strength < OPAQUE or any(edge % self._step for edge in edges):
            self.blend(top, left, np.full((bottom - top, right - left), strength, np.uint8), colour)
            return
        for (plane, down, across), value in zip(self._planes, self._paint(colour), strict=False):
            self._surface.fill(plane, top // down, left // across, -(-bottom // down), -(-right // across), value)

    def outline(self, top: int, left: int, bottom: int, right: int, colour: Rgb) -> None:
        """Draw the border of a rectangle, `line_width` wide, inside of it."""
        line = self.line_width
        if bottom - top <= 2 * line or right - left <= 2 * line:
            self.rectangle(top, left, bottom, right, colour)
            return
        self.rectangle(top, left, top + line, right, colour)
        self.rectangle(bottom - line, left, bottom, right, colour)
        self.rectangle(top + line, left, bottom - line, left + line, colour)
        self.rectangle(top + line, right - line, bottom - line, right, colour)

    def polyline(self, points: Sequence[Point], colour: Rgb, closed: bool = False) -> None:
        """Draw lines from point to point, (x, y) each."""
        near = [self._near(point) for point in points]
        pad = self.line_width
        left, top = min(x for x, _ in near) - pad, min(y for _, y in near) - pad
        right, bottom = max(x for x, _ in near) + pad, max(y for _, y in near) + pad
        picture = Image.new("L", (right - left + 1, bottom - top + 1))
        moved = [(x - left, y - top) for x, y in (*near, *near[: 1 if closed else 0])]
        ImageDraw.Draw(picture).line(moved, OPAQUE, self.line_width, joint="curve")
        self.blend(top, left, np.asarray(picture), colour)

    def dot(self, point: Point, colour: Rgb) -> None:
        """Draw a disc around a point (x, y)."""
        disc = _disc(self.line_width + 1)
        x, y = self._near(point)
        self.blend(y - len(disc) // 2, x - len(disc) // 2, disc, colour)

    def text(self, top: int, left: int, text: str, colour: Rgb) -> None:
        """Draw one line of text, whose upper left corner is (top, left)."""
        self.blend(top, left, _text_mask(text, self.text_size), colour)

    def text_box(self, text: str) -> tuple[int, int]:
        """Return height and width of a line of text, in whole samples of all planes."""
        height, width = sum(font(self.text_size).getmetrics()), text_width(text, self.text_size)
        return height + height % self._step, width + width % self._step

    def _near(self, point: Point) -> tuple[int, int]:
        """Return the pixel of a point, moved to at most one picture size outside: the mask of a shape has a bounded
        size.
        """
        x, y = (value if np.isfinite(value) else 0 for value in point)
        return (
            round(min(max(x, -self.width), 2 * self.width)),
            round(min(max(y, -self.height), 2 * self.height)),
        )


def _shared(mask: Array, above: int, before: int, down: int, across: int) -> Array:
    """Return the mask of a plane with a sample for each `down` x `across` pixels: means of the pixels of a sample.

    `above`, `before`: how many pixels of the first sample's block lie before the mask.
    """
    if (down, across) == (1, 1):
        return mask
    height, width = mask.shape
    rows, columns = -(-(above + height) // down), -(-(before + width) // across)
    blocks = np.zeros((rows * down, columns * across), np.uint16)
    blocks[above : above + height, before : before + width] = mask
    total = np.zeros((rows, columns), np.uint16)
    for row in range(down):
        for column in range(across):
            total += blocks[row::down, column::across]
    share: Array = ((total + down * across // 2) // (down * across)).astype(np.uint8)
    return share


@lru_cache(maxsize=64)
def _disc(radius: int) -> Array:
    picture = Image.new("L", (2 * radius + 1, 2 * radius + 1))
    ImageDraw.Draw(picture).ellipse((0, 0, 2 * radius, 2 * radius), OPAQUE)
    return np.asarray(picture)


@lru_cache(maxsize=1024)
def _text_mask(text: str, size: int) -> Array:
    face = font(size)
    picture = Image.new("L", (max(1, text_width(text, size)), sum(face.getmetrics())))
    ImageDraw.Draw(picture).text((0, 0), text, OPAQUE, face)
    return np.asarray(picture)
