"""What a search of a library found, for people: words for a table, and a page with pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

from engines.files import PartFile
from engines.library.duplicates import Copy, Group
from engines.library.search import Hit
from engines.library.spaces import Space
from engines.outputs.page import Figure, PageSection, html_page
from engines.outputs.thumbnail import thumbnail
from engines.part import Array
from schemas.errors import RigflowError

_BOX = (144, 256)  # height and width of a picture in CSS pixels
_DOTS = (2 * _BOX[0], 2 * _BOX[1])  # of a screen that has two for each


def clock(time_s: float | None) -> str:
    """Seconds as `1:02:03`, with a tenth where they are no whole ones; empty for an image."""
    if time_s is None or math.isnan(time_s):
        return ""
    tenths = round(time_s * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02}:{seconds}" if hours else f"{minutes}:{seconds}"


def hits_page(title: str, hits: Sequence[Hit], shown: Array | None = None) -> tuple[str, int]:
    """Return the page of a search, and how many pictures are missing; `shown`: the picture that was searched for."""
    figures = [_figure(hit.media, hit.time_s, f"{hit.score:.3f}") for hit in hits]
    sections = [PageSection("", "", figures)]
    if shown is not None:
        sections = [PageSection("", "searched for", [Figure("", shown)]), PageSection("", "found", figures)]
    return html_page(title, sections, _BOX), sum(figure.picture is None for figure in figures)


def groups_page(title: str, groups: Sequence[Group], space: Space) -> tuple[str, int]:
    """Return the page of near-duplicates, and how many pictures are missing."""
    sections = []
    for number, group in enumerate(groups, start=1):
        first = _figure(space.names[group.first], group.copies[0].original_s, "")
        copies = [_figure(space.names[copy.media], copy.time_s, _copied(copy)) for copy in group.copies]
        sections.append(PageSection(str(number), f"{len(copies) + 1} media", [first, *copies]))
    missing = sum(figure.picture is None for section in sections for figure in section.figures)
    return html_page(title, sections, _BOX), missing


def write_page(path: Path, page: str) -> Path:
    """Write a page. Raises OutputError."""
    file = PartFile.create(path)
    try:
        file.write(page.encode())
        return file.commit()
    finally:
        file.discard()


def picture_of(media: str, time_s: float | None) -> Array | None:
    """A small picture of a media; None if its file is not there, or is another one now."""
    try:
        return thumbnail(Path(media), 0.0 if time_s is None or math.isnan(time_s) else time_s, _DOTS)
    except (RigflowError, OSError, ValueError):
        return None


def _copied(copy: Copy) -> str:
    """The similarity of a copy, and when the original shows its picture."""
    original = clock(copy.original_s)
    return f"{copy.score:.3f}" + (f", original {original}" if original else "")


def _figure(media: str, time_s: float | None, note: str) -> Figure:
    return Figure(Path(media).name, picture_of(media, time_s), note, clock(time_s), media)
