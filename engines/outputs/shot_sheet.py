"""Draws the contact sheet of `shots`: one picture a shot, with its number and its time."""

from fractions import Fraction
from math import ceil, sqrt
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

from engines.media.reshape import EXACT
from engines.outputs.pictures import decode_jpeg
from engines.outputs.sheet import BLANK, BRIGHT, DIM, TEXT, Layout, Section, Tile, draw_sheet
from engines.outputs.text import text_width
from engines.part import Array
from schemas.media import MediaInfo

_MOST_TILES = 400  # a film has thousands of shots: beyond this, every second picture is dropped, repeatedly
_MOST_SIDE = 360  # pixels of a picture's longer side: the sheet's size is bounded for any thumbnails
_MOST_COLUMNS = 8
_ASPECT = 1.6  # of the sheet, while it has fewer columns


class _Shot(NamedTuple):
    number: int
    start: float
    jpeg: bytes


class ShotSheet:
    """Collects the pictures of shots and draws them; keeps at most 400. `media` is that of the shots' parts."""

    def __init__(self, media: MediaInfo) -> None:
        self._media = media
        self._kept: list[_Shot] = []
        self._shots = 0
        self._step = 1
        self._end = 0.0

    @property
    def notes(self) -> list[str]:
        """Return a note on the shots that the sheet leaves out."""
        return [f"the sheet shows one in {self._step} of {self._shots} shots"] if self._step > 1 else []

    def add(self, jpeg: bytes, start: float, end: float) -> None:
        """Add the next shot, from `start` to `end` seconds; an empty `jpeg` leaves its place blank."""
        if self._shots % self._step == 0:
            self._kept.append(_Shot(self._shots + 1, start, jpeg))
        self._shots += 1
        self._end = end
        if len(self._kept) > _MOST_TILES:
            self._kept = self._kept[::2]
            self._step *= 2

    def draw(self) -> Array:
        """Return the sheet, `[H, W, 3] uint8` RGB."""
        pictures = [self._picture(shot.jpeg) for shot in self._kept]
        box = (
            max((picture.shape[0] for picture in pictures), default=90),
            max((picture.shape[1] for picture in pictures), default=160),
        )
        labels = [(f"{shot.number}  ", _clock_text(shot.start)) for shot in self._kept]
        tiles = [
            Tile(picture, (((number, BRIGHT), (time, DIM)),))
            for (number, time), picture in zip(labels, pictures, strict=True)
        ]
        widest = max((text_width("".join(label), TEXT) for label in labels), default=0)  # below an upright picture
        layout = Layout(_columns(len(tiles), box, widest), box, lines=1, cell_width=widest)
        summary = f"{self._shots} {'shot' if self._shots == 1 else 'shots'}, {_clock_text(self._end)}"
        return draw_sheet(self._media.name, summary, [Section(tiles)], layout)

    def _picture(self, jpeg: bytes) -> Array:
        """Return the thumbnail in the display shape of the video, limited to 1:3 to 3:1; large ones shrink."""
        if not jpeg:
            pixels = np.empty((90, 160, 3), dtype=np.uint8)
            pixels[:] = BLANK
        else:
            pixels = decode_jpeg(jpeg)
        height, width = pixels.shape[:2]
        aspect = Fraction(width, height) * (Fraction(*self._media.sample_aspect) or 1)
        aspect = min(max(aspect, Fraction(1, 3)), Fraction(3))
        height = max(height, width) if aspect < 1 else height  # all pictures of a model are as wide, upright ones too
        shown = round(height * aspect)
        scale = min(Fraction(1), Fraction(_MOST_SIDE, max(height, shown)))
        new_height, new_width = round(height * scale), round(shown * scale)
        if (new_height, new_width) == pixels.shape[:2]:
            return pixels
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        shaped = frame.reformat(width=new_width, height=new_height, interpolation=Interpolation.BICUBIC | EXACT)
        return np.asarray(shaped.to_ndarray())


def _columns(count: int, box: tuple[int, int], least: int) -> int:
    """Return the number of columns, each `least` pixels wide, that gives a sheet of about the wanted shape."""
    height, width = Layout(1, box, lines=1, cell_width=least).pitch
    wanted = max(min(count, 3), ceil(sqrt(count * height / width * _ASPECT)))
    return max(1, min(count, _MOST_COLUMNS, wanted))


def _clock_text(seconds: float) -> str:
    """Format as `1:02:03.4`, without hours if there are none."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    short = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{short}" if hours else f"{minutes}:{short}"
