"""One HTML page of pictures with captions, complete in itself: it names no other file and needs no network."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from engines.outputs.pictures import encode_jpeg
from engines.part import Array


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture `[H, W, 3] uint8`, or none, with its caption; `note` is dim and `mark` bright, both optional.

    `tip` is shown when the mouse is over it.
    """

    caption: str
    picture: Array | None = None
    note: str = ""
    mark: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class PageSection:
    """Figures under a heading: its `number` or name is bright, what it is `about` is dim; both may be empty."""

    number: str
    about: str
    figures: Sequence[Figure]


def html_page(title: str, sections: Sequence[PageSection], box: tuple[int, int]) -> str:
    """Return the page; `box` is the (height, width) of a picture in CSS pixels."""
    body = "\n".join(_section(each) for each in sections)
    return _PAGE.format(title=escape(title), sections=body, height=box[0], width=box[1])


def _section(section: PageSection) -> str:
    heading = f"<h2><b>{escape(section.number)}</b> {escape(section.about)}</h2>\n"
    figures = "\n".join(map(_figure, section.figures))
    return f"<section>{heading if section.number or section.about else ''}<div>\n{figures}\n</div></section>"


def _figure(figure: Figure) -> str:
    picture = '<span class="none">no picture</span>'
    if figure.picture is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{b64encode(encode_jpeg(_even(figure.picture))).decode()}">'
    lines = f"<mark>{escape(figure.mark)}</mark>" if figure.mark else ""
    lines += f"<small>{escape(figure.note)}</small>" if figure.note else ""
    caption = f"<figcaption>{escape(figure.caption)}{lines}</figcaption>"
    return f'<figure title="{escape(figure.tip)}">{picture}{caption}</figure>'


def _even(picture: Array) -> Array:
    """Return the picture without an odd last row or column, which jpeg's halved colours cannot represent."""
    return np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2 or 1, : picture.shape[1] // 2 * 2 or 1])


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: dark }}
body {{ margin: 2rem; background: #141518; color: #e8e8ec; font: 15px/1.4 system-ui, sans-serif }}
h1 {{ font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere }}
h2 {{ font-size: 1rem; font-weight: 400; color: #94969e; margin: 2rem 0 .6rem }}
h2 b:not(:empty) {{ color: #e8e8ec; margin-right: .4rem }}
div {{ display: grid; grid-template-columns: repeat(auto-fill, {width}px); gap: 14px }}
figure {{ margin: 0 }}
img, .none {{ display: block; width: {width}px; height: {height}px; object-fit: contain; background: #2c2e34 }}
.none {{ line-height: {height}px; text-align: center; color: #94969e }}
figcaption {{ font-size: 13px; overflow-wrap: anywhere; margin-top: 4px }}
small, mark {{ display: block; color: #94969e; background: none }}
mark {{ color: #f0b246 }}
</style>
<h1>{title}</h1>
{sections}
</html>
"""
