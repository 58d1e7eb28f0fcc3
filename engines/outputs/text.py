"""Draws text in pictures by one font for Latin letters with all accents, Greek, Cyrillic, Chinese, Japanese and Korean.

The font is WenQuanYi Micro Hei (Apache 2.0), which a package contains, and the layout is Pillow's own: the pixels do
not depend on the fonts and libraries of the machine.
"""

import unicodedata
from functools import lru_cache
from importlib.resources import files

from PIL import ImageFont

from schemas.text import printable

_FONT = files("paperang_p2_fonts_cjk") / "fonts" / "wqy-microhei.ttc"
_ELLIPSIS = "..."


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font at `size` pixels an em."""
    return ImageFont.truetype(str(_FONT), size, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, size: int) -> int:
    """Return the pixels from the start of `text` to the start of a text after it."""
    return round(font(size).getlength(text))


def one_line(text: str, size: int, width: int) -> str:
    """Return `text` with unprintable characters escaped, cut with an ellipsis if it is wider than `width` pixels."""
    text = unicodedata.normalize("NFC", printable(text))  # macOS writes "ü" in file names as "u" and two dots
    if text_width(text, size) <= width:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if text_width(text[:middle] + _ELLIPSIS, size) <= width:
            fits = middle
        else:
            too_long = middle
    return text[:fits] + _ELLIPSIS
