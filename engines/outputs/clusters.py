"""Clusters for programs and for people: a line of JSON each, and contact sheets as png and as html.

A line is `{"cluster": 1, "similarity": mean over its pairs, "media": [{"name", "result", "similarity" to the first,
"duplicate_of": name of the original or null, "offset_s": what this shows at t, the original shows at t + offset_s}]}`.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil
from pathlib import Path

import numpy as np

from engines.clusters import Cluster, Member
from engines.files import PartFile
from engines.outputs.canvas import BLANK, BRIGHT, DIM, MARK, PAPER, clipped, write_text
from engines.outputs.jsonl import json_line, rounded
from engines.outputs.pictures import encode_jpeg, encode_png
from engines.part import Array

FILES = ("clusters.jsonl", "clusters.html", "clusters.png")
PICTURE = (90, 160)  # height and width that a picture fits into
_MARGIN, _GAP, _HEAD, _LABELS = 24, 14, 48, 40  # pixels
_COLUMNS, _LEAST_COLUMNS = 8, 3
_MOST_ROWS, _MOST_ROWS_OF_ONE = 60, 5  # of the png, in all and of one cluster; the html has every media


@dataclass(frozen=True, slots=True)
class Shown:
    """A media as people see it: its name, where its result is, and its picture `[H, W, 3] uint8`, if there is one."""

    name: str
    result: str
    picture: Array | None = None


def write_clusters(folder: Path, clusters: Sequence[Cluster], media: Sequence[Shown]) -> list[Path]:
    """Write `clusters.jsonl`, `clusters.html` and `clusters.png` into `folder`. Raises OutputError."""
    bodies = (
        "".join(json_line(row) for row in rows(clusters, media)).encode(),
        html_sheet(clusters, media).encode(),
        encode_png(draw_sheet(clusters, media)),
    )
    files: list[PartFile] = []
    try:
        for name, body in zip(FILES, bodies, strict=True):
            files.append(PartFile.create(folder / name))
            files[-1].write(body)
        return [file.commit() for file in files]
    finally:
        for file in files:
            file.discard()


def rows(clusters: Sequence[Cluster], media: Sequence[Shown]) -> Iterator[dict[str, object]]:
    """What the lines of JSON say."""
    for number, cluster in enumerate(clusters, start=1):
        yield {
            "cluster": number,
            "similarity": rounded(cluster.similarity),
            "media": [
                {
                    "name": media[member.media].name,
                    "result": media[member.media].result,
                    "similarity": rounded(member.similarity),
                    "duplicate_of": None if member.duplicate_of is None else media[member.duplicate_of].name,
                    "offset_s": None if member.duplicate_of is None else round(member.offset_s, 6),
                }
                for member in cluster.members
            ],
        }


def summary(clusters: Sequence[Cluster]) -> str:
    """The whole in a line."""
    members = [member for cluster in clusters for member in cluster.members]
    copies = sum(member.duplicate_of is not None for member in members)
    parts = [_count(len(clusters), "cluster"), f"of {len(members)} media,", _count(copies, "near-duplicate")]
    return " ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Section:
    """What stands together on a sheet: a cluster under its number, or all media that are like no other."""

    number: str
    about: str
    members: tuple[Member, ...]


def _sections(clusters: Sequence[Cluster]) -> list[_Section]:
    many = [
        _Section(str(number), f"{len(each.members)} media, similarity {each.similarity:.2f}", each.members)
        for number, each in enumerate(clusters, start=1)
        if len(each.members) > 1
    ]
    alone = tuple(each.members[0] for each in clusters if len(each.members) == 1)
    return [*many, _Section("", f"{len(alone)} alone", alone)] if alone else many


def _copy_text(member: Member, media: Sequence[Shown]) -> str:
    """What a near-duplicate is: of whom, and where in it."""
    if member.duplicate_of is None:
        return ""
    offset = f" {member.offset_s:+.1f} s" if abs(member.offset_s) >= 0.05 else ""
    return f"= {media[member.duplicate_of].name}{offset}"


def _similarity_text(member: Member) -> str:
    return f"{member.similarity:.3f}" if member.similarity < 1 else ""


def draw_sheet(clusters: Sequence[Cluster], media: Sequence[Shown]) -> Array:
    """The sheet, `[H, W, 3] uint8` RGB: a heading and a grid of pictures for each cluster, at most 60 rows of them."""
    height, width = PICTURE[0] + _LABELS + _GAP, PICTURE[1] + _GAP
    sections = _sections(clusters)
    columns = min(_COLUMNS, max(_LEAST_COLUMNS, *(len(section.members) for section in sections)))
    shown = _shown(sections, columns)
    left_out = sum(len(each.members) for each in clusters) - sum(len(section.members) for section in shown)
    tops = np.cumsum([_MARGIN + _HEAD, *(_HEAD // 2 + ceil(len(each.members) / columns) * height for each in shown)])
    canvas = np.empty((int(tops[-1]) + _MARGIN, columns * width - _GAP + 2 * _MARGIN, 3), np.uint8)
    canvas[:] = PAPER
    write_text(canvas, _MARGIN, _MARGIN, clipped(summary(clusters), 2, columns * width), BRIGHT, 2)
    if left_out:
        write_text(canvas, _MARGIN, _MARGIN + 22, f"{left_out} of them are on the html page only", DIM, 1)
    for section, top in zip(shown, tops.tolist(), strict=False):
        number = f"{section.number} " if section.number else ""
        write_text(canvas, _MARGIN, top, number, BRIGHT, 2)
        write_text(canvas, _MARGIN + 12 * len(number), top, section.about, DIM, 2)
        for place, member in enumerate(section.members):
            row, column = divmod(place, columns)
            cell_top, cell_left = top + _HEAD // 2 + row * height, _MARGIN + column * width
            _draw_tile(canvas[cell_top : cell_top + height, cell_left : cell_left + width - _GAP], member, media)
    return canvas


def _shown(sections: Sequence[_Section], columns: int) -> list[_Section]:
    """The sections, and of each the members, that the png has room for."""
    shown: list[_Section] = []
    room = _MOST_ROWS
    for section in sections:
        members = section.members[: columns * min(room, _MOST_ROWS_OF_ONE)]
        room -= ceil(len(members) / columns)
        shown += [replace(section, members=members)] if members else []
    return shown


def _draw_tile(cell: Array, member: Member, media: Sequence[Shown]) -> None:
    box, of = cell[: PICTURE[0], : PICTURE[1]], media[member.media]
    box[:] = BLANK
    if of.picture is None:
        write_text(box, 8, PICTURE[0] // 2 - 4, "no picture", DIM, 1)
    else:
        height, width = of.picture.shape[:2]
        top, left = (box.shape[0] - height) // 2, (box.shape[1] - width) // 2
        box[top : top + height, left : left + width] = of.picture
    write_text(cell, 0, PICTURE[0] + 7, clipped(of.name, 1, cell.shape[1]), BRIGHT, 1)
    copy = _copy_text(member, media)
    caption, colour = (copy, MARK) if copy else (_similarity_text(member), DIM)
    write_text(cell, 0, PICTURE[0] + 20, clipped(caption, 1, cell.shape[1]), colour, 1)


def html_sheet(clusters: Sequence[Cluster], media: Sequence[Shown]) -> str:
    """The sheet as one page that needs nothing else."""
    sections = "\n".join(
        f"<section><h2><b>{section.number}</b> {section.about}</h2>\n<div>\n"
        + "\n".join(_figure(member, media) for member in section.members)
        + "\n</div></section>"
        for section in _sections(clusters)
    )
    return _PAGE.format(title=escape(summary(clusters)), sections=sections)


def _figure(member: Member, media: Sequence[Shown]) -> str:
    of = media[member.media]
    picture = '<span class="none">no picture</span>'
    if of.picture is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{b64encode(encode_jpeg(_even(of.picture))).decode()}">'
    copy = _copy_text(member, media)
    note = f"<mark>{escape(copy)}</mark>" if copy else f"<small>{_similarity_text(member)}</small>"
    name = escape(of.name)
    return f'<figure title="{escape(of.result)}">{picture}<figcaption>{name}{note}</figcaption></figure>'


def _even(picture: Array) -> Array:
    """Without the last row or column where their number is odd, which jpeg's halved colours cannot say."""
    return np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2 or 1, : picture.shape[1] // 2 * 2 or 1])


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: dark }}
body {{ margin: 2rem; background: #141518; color: #e8e8ec; font: 15px/1.4 system-ui, sans-serif }}
h1 {{ font-size: 1.3rem; font-weight: 600 }}
h2 {{ font-size: 1rem; font-weight: 400; color: #94969e; margin: 2rem 0 .6rem }}
h2 b:not(:empty) {{ color: #e8e8ec; margin-right: .4rem }}
div {{ display: grid; grid-template-columns: repeat(auto-fill, 160px); gap: 14px }}
figure {{ margin: 0 }}
img, .none {{ display: block; width: 160px; height: 90px; object-fit: contain; background: #2c2e34 }}
.none {{ line-height: 90px; text-align: center; color: #94969e }}
figcaption {{ font-size: 13px; overflow-wrap: anywhere; margin-top: 4px }}
small, mark {{ display: block; color: #94969e; background: none }}
mark {{ color: #f0b246 }}
</style>
<h1>{title}</h1>
{sections}
</html>
"""
