"""The contact sheet: one picture a shot, in a grid, with its number and its time."""

from fractions import Fraction
from math import ceil, sqrt
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

from engines.media.reshape import EXACT
from engines.outputs.canvas import BLANK, BRIGHT, DIM, PAPER, clipped, write_text
from engines.outputs.pictures import decode_jpeg
from engines.part import Array
from schemas.messages import MediaInfo

_MOST_TILES = 400  # a film has thousands of shots: from here on every other picture is left out, again and again
_MARGIN, _GAP, _HEAD, _LABEL = 24, 14, 48, 24  # pixels
_LEAST_CELL = 168  # so that a label fits below an upright picture
_MOST_SIDE = 360  # pixels of a picture's longer side: the sheet's size is bounded whatever the thumbnails are


class _Tile(NamedTuple):
    shot: int
    start: float
    jpeg: bytes


class Sheet:
    """Collects the pictures of shots and draws them; keeps at most 400. `media` is that of the shots' parts."""

    def __init__(self, media: MediaInfo) -> None:
        self._media = media
        self._tiles: list[_Tile] = []
        self._shots = 0
        self._step = 1
        self._end = 0.0

    @property
    def notes(self) -> list[str]:
        """What the sheet does not show."""
        return [f"the sheet shows one in {self._step} of {self._shots} shots"] if self._step > 1 else []

    def add(self, jpeg: bytes, start: float, end: float) -> None:
        """The next shot, from `start` to `end` seconds; an empty `jpeg` leaves its place blank."""
        if self._shots % self._step == 0:
            self._tiles.append(_Tile(self._shots + 1, start, jpeg))
        self._shots += 1
        self._end = end
        if len(self._tiles) > _MOST_TILES:
            self._tiles = self._tiles[::2]
            self._step *= 2

    def draw(self) -> Array:
        """The sheet, `[H, W, 3] uint8` RGB."""
        pictures = [self._picture(tile.jpeg) for tile in self._tiles]
        height, width = max((picture.shape[:2] for picture in pictures), default=(90, 160))
        cell_width, cell_height = max(width, _LEAST_CELL) + _GAP, height + _LABEL + _GAP
        count = max(1, len(pictures))
        columns = min(count, 8, max(min(count, 3), ceil(sqrt(count * cell_height / cell_width * 1.6))))
        rows = ceil(count / columns)
        sheet = np.empty(
            (_HEAD + rows * cell_height - _GAP + 2 * _MARGIN, columns * cell_width - _GAP + 2 * _MARGIN, 3), np.uint8
        )
        sheet[:] = PAPER
        self._draw_head(sheet)
        for place, (tile, picture) in enumerate(zip(self._tiles, pictures, strict=True)):
            row, column = divmod(place, columns)
            left, top = _MARGIN + column * cell_width, _MARGIN + _HEAD + row * cell_height
            cell = sheet[top : top + cell_height - _GAP, left : left + cell_width - _GAP]
            _draw_tile(cell, tile, picture)
        return sheet

    def _draw_head(self, sheet: Array) -> None:
        summary = f"{self._shots} {'shot' if self._shots == 1 else 'shots'}, {_clock_text(self._end)}"
        room = sheet.shape[1] - 2 * _MARGIN
        write_text(sheet, _MARGIN, _MARGIN, clipped(self._media.name, 2, room), BRIGHT, 2)
        write_text(sheet, _MARGIN, _MARGIN + 22, summary, DIM, 1)

    def _picture(self, jpeg: bytes) -> Array:
        """The thumbnail in the shape that the video is shown in, kept between 1:3 and 3:1; large ones shrink."""
        if not jpeg:
            pixels = np.empty((90, 160, 3), dtype=np.uint8)
            pixels[:] = BLANK
        else:
            pixels = decode_jpeg(jpeg)
        height, width = pixels.shape[:2]
        aspect = Fraction(width, height) * (Fraction(*self._media.sample_aspect) or 1)
        shown = round(height * min(max(aspect, Fraction(1, 3)), Fraction(3)))
        scale = min(Fraction(1), Fraction(_MOST_SIDE, max(height, shown)))
        new_height, new_width = round(height * scale), round(shown * scale)
        if (new_height, new_width) == (height, width):
            return pixels
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        shaped = frame.reformat(width=new_width, height=new_height, interpolation=Interpolation.BICUBIC | EXACT)
        return np.asarray(shaped.to_ndarray())


def _draw_tile(cell: Array, tile: _Tile, picture: Array) -> None:
    height, width = picture.shape[:2]
    cell[:height, :width] = picture
    number, time = str(tile.shot), _clock_text(tile.start)
    write_text(cell, 0, height + 7, number, BRIGHT, 2)
    write_text(cell, len(number) * 12 + 12, height + 7, time, DIM, 2)


def _clock_text(seconds: float) -> str:
    """`1:02:03.4`, without the hours when there are none."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    short = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{short}" if hours else f"{minutes}:{short}"
