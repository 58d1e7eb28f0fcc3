"""Clusters for programs and for people: a line of JSON each, and contact sheets as png and as html.

A line is `{"cluster": 1, "similarity": mean over its pairs, "media": [{"name", "result", "similarity" to the first,
"duplicate_of": name of the original or null, "offset_s": what this shows at t, the original shows at t + offset_s}]}`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from engines.clusters import Cluster, Member
from engines.files import PartFile
from engines.outputs.jsonl import json_line, rounded
from engines.outputs.page import Figure, PageSection, html_page
from engines.outputs.pictures import encode_png
from engines.outputs.sheet import BRIGHT, DIM, MARK, Layout, Section, Tile, Words, draw_sheet
from engines.part import Array

FILES = ("clusters.jsonl", "clusters.html", "clusters.png")
PICTURE = (144, 256)  # height and width of the box of a picture
_ON_PAGE = (90, 160)  # the same in CSS pixels: a screen may have two dots or more for each
_COLUMNS, _LEAST_COLUMNS = 7, 3
_MOST_ROWS, _MOST_ROWS_OF_ONE = 60, 5  # of the png, in all and of one cluster; the html has every media


@dataclass(frozen=True, slots=True)
class Shown:
    """A media on the sheets: its name, the path of its result, and its picture `[H, W, 3] uint8`, if there is one."""

    name: str
    result: str
    picture: Array | None = None


def write_clusters(folder: Path, clusters: Sequence[Cluster], media: Sequence[Shown]) -> list[Path]:
    """Write `clusters.jsonl`, `clusters.html` and `clusters.png` into `folder`. Raises OutputError."""
    bodies = (
        "".join(json_line(row) for row in rows(clusters, media)).encode(),
        html_sheet(clusters, media).encode(),
        encode_png(picture_sheet(clusters, media)),
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
    """Yield the content of the lines of JSON."""
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
    """Return a summary of one line."""
    members = [member for cluster in clusters for member in cluster.members]
    copies = sum(member.duplicate_of is not None for member in members)
    parts = [_count(len(clusters), "cluster"), f"of {len(members)} media,", _count(copies, "near-duplicate")]
    return " ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Group:
    """One section of a sheet: a numbered cluster, or all media that belong to none."""

    number: str
    about: str
    members: tuple[Member, ...]


def _sections(clusters: Sequence[Cluster]) -> list[_Group]:
    many = [
        _Group(str(number), f"{len(each.members)} media, similarity {each.similarity:.2f}", each.members)
        for number, each in enumerate(clusters, start=1)
        if len(each.members) > 1
    ]
    alone = tuple(each.members[0] for each in clusters if len(each.members) == 1)
    return [*many, _Group("", f"{len(alone)} alone", alone)] if alone else many


def _copy_text(member: Member, media: Sequence[Shown]) -> str:
    """Return the text of a near-duplicate: its original, and the offset in it."""
    if member.duplicate_of is None:
        return ""
    offset = f" {member.offset_s:+.1f} s" if abs(member.offset_s) >= 0.05 else ""
    return f"= {media[member.duplicate_of].name}{offset}"


def _similarity_text(member: Member) -> str:
    return f"{member.similarity:.3f}" if member.similarity < 1 else ""


def picture_sheet(clusters: Sequence[Cluster], media: Sequence[Shown]) -> Array:
    """Return the sheet, `[H, W, 3] uint8` RGB: a heading and a grid of pictures for each cluster, at most 60 rows."""
    sections = _sections(clusters)
    columns = min(_COLUMNS, max(_LEAST_COLUMNS, *(len(section.members) for section in sections)))
    shown = _shown(sections, columns)
    left_out = sum(len(each.members) for each in clusters) - sum(len(section.members) for section in shown)
    note = f"{left_out} of them are on the html page only" if left_out else ""
    drawn = [Section([_tile(each, media) for each in section.members], _heading(section)) for section in shown]
    return draw_sheet(summary(clusters), note, drawn, Layout(columns, PICTURE, lines=2))


def _shown(sections: Sequence[_Group], columns: int) -> list[_Group]:
    """Return the sections, and the members of each, that fit into the png."""
    shown: list[_Group] = []
    room = _MOST_ROWS
    for section in sections:
        members = section.members[: columns * min(room, _MOST_ROWS_OF_ONE)]
        room -= ceil(len(members) / columns)
        shown += [replace(section, members=members)] if members else []
    return shown


def _heading(section: _Group) -> Words:
    number: Words = ((f"{section.number}  ", BRIGHT),) if section.number else ()
    return (*number, (section.about, DIM))


def _tile(member: Member, media: Sequence[Shown]) -> Tile:
    of, copy = media[member.media], _copy_text(member, media)
    return Tile(of.picture, (((of.name, BRIGHT),), ((copy, MARK) if copy else (_similarity_text(member), DIM),)))


def html_sheet(clusters: Sequence[Cluster], media: Sequence[Shown]) -> str:
    """Return the sheet as one page without external files."""
    sections = [
        PageSection(each.number, each.about, [_figure(member, media) for member in each.members])
        for each in _sections(clusters)
    ]
    return html_page(summary(clusters), sections, _ON_PAGE)


def _figure(member: Member, media: Sequence[Shown]) -> Figure:
    of, copy = media[member.media], _copy_text(member, media)
    return Figure(of.name, of.picture, "" if copy else _similarity_text(member), copy, of.result)
