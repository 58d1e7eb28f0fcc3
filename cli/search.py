"""`rigflow search`: pictures and films by words, by a picture, and near-duplicates, in the results of embed."""

import json
import math
import os
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Json, Overwrite, SettingsFile, ends_well, settings_from
from cli.text import say_sentence, stdout, warn
from schemas.errors import ExitCode, UsageError
from schemas.text import count

if TYPE_CHECKING:
    from cli.tables import Given
    from engines.library.duplicates import Group
    from engines.library.index import Index
    from engines.library.search import Hit
    from engines.library.spaces import Space, Table
    from engines.part import Array


@ends_well
def search(
    given: Annotated[
        list[str],
        typer.Argument(help="What is searched for, and the folder of the results.", metavar="[WORDS] LIBRARY"),
    ],
    like: Annotated[Path | None, typer.Option(help="Search by this picture or film.", metavar="FILE")] = None,
    at: Annotated[
        str | None, typer.Option(help="Of a film by --like: when, in seconds or as 1:23.", metavar="TIME")
    ] = None,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Find near-duplicates.")] = False,
    similarity: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="From which on pictures are near-duplicates.", metavar="COSINE")
    ] = 0.95,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="How many are shown.", metavar="N")] = 20,
    every: Annotated[bool, typer.Option("--every", help="Every picture of a film, not its best one.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Which model's vectors, of a library of several.", metavar="NAME")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures, one file that works offline.", metavar="FILE")
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="Build the index first, or bring it up to date; needs usearch.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with all pictures, without an index.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Search media by words or a picture, or for copies.

    LIBRARY is the folder that `rigflow run embed FILES --out LIBRARY` filled. Words need a model with a text tower. A
    score is the cosine of two vectors. A library of several models needs --model.

    Example: rigflow search "a dog on a beach" library --html found.html
    """
    from engines.library.query import fill
    from engines.library.table import up_to_date

    words, library = _query(given, like, duplicates)
    if at is not None and like is None:
        raise UsageError("--at is for a film by --like", "give --like FILE, or leave --at out")
    at_s = 0.0 if at is None else seconds_of(at)
    if html is not None and html.exists() and not overwrite:
        raise UsageError(f"{html} is there", "give --overwrite to replace it, or another --html")
    if not library.is_dir():
        what = f"{library}: {'not a folder' if library.exists() else 'no such folder'}"
        raise UsageError(what, fill(library))
    with up_to_date(library) as found:
        searching = _Searching(found, library, model, most, every, index, exact, settings_from(settings_file))
        if duplicates:
            space, groups = searching.duplicates(similarity)
            return _show_groups(space, groups, most, html, as_json)
        space, hits = searching.like(like, at_s) if like is not None else searching.words(words)
    title = words or f"like {like}"
    return _show_hits(title, space, hits, every, html, as_json, None if like is None else (like, at_s))


def seconds_of(time: str) -> float:
    """The seconds of a time, which is written as `83.5`, `1:23.5` or `0:01:23.5`. Raises UsageError."""
    if re.fullmatch(r"((\d{1,4}:)?\d{1,4}:)?\d{1,9}(\.\d*)?", time) is None:
        raise UsageError(f"--at {time}: no time", "give seconds, or a time as 1:23 or 1:02:03")
    *minutes, seconds = time.split(":")
    return reduce(lambda total, part: 60 * (total + int(part)), minutes, 0) + float(seconds)


def _query(given: list[str], like: Path | None, duplicates: bool) -> tuple[str, Path]:
    """The words, "" if it is searched by something else, and the library. Raises UsageError."""
    ways = [name for name, there in (("--like", like is not None), ("--duplicates", duplicates)) if there]
    if len(given) > 2:
        raise UsageError(
            f"{len(given)} arguments", 'put the words in quotes: rigflow search "a dog on a beach" LIBRARY'
        )
    if len(given) == 2:
        ways.insert(0, "words")
    if len(ways) != 1:
        what = f"{' and '.join(ways)}: one at a time" if ways else "nothing to search for"
        raise UsageError(what, 'give "WORDS" and LIBRARY, or LIBRARY with --like FILE or --duplicates')
    words = " ".join(given[0].split()) if len(given) == 2 else ""
    if len(given) == 2 and not words:
        raise UsageError("the words are empty", "say what is to be seen")
    return words, Path(given[-1])


class _Searching:
    """One search of a library."""

    def __init__(
        self,
        found: "Table",
        library: Path,
        model: str | None,
        most: int,
        every: bool,
        index: bool,
        exact: bool,
        settings: Any,
    ) -> None:
        from engines.library.query import spaces_of

        self._table, self._library = found, library
        self._spaces = spaces_of(found, library, model)
        self._name = next(iter(self._spaces.values())).model
        self._most, self._every = most, every
        self._index, self._exact = index, exact
        self._cache: Path = settings.cache_folder

    def words(self, words: str) -> "tuple[Space, list[Hit]]":
        """The hits of words."""
        from engines.library.query import space_of
        from engines.models.identities import kept_spec
        from engines.models.text import embed_texts

        spec, content = kept_spec(self._name, self._cache)
        space = space_of(self._spaces, self._library, spec)
        return space, self._hits(space, embed_texts(spec, content, [words])[0])

    def like(self, path: Path, at_s: float) -> "tuple[Space, list[Hit]]":
        """The hits of a picture."""
        from engines.library.query import embed_picture, space_of
        from engines.models.catalogue import own_model

        if not path.is_file():
            raise UsageError(f"{path}: no such file", "check the path")
        spec, content = own_model(self._name)
        space = space_of(self._spaces, self._library, spec)
        return space, self._hits(space, embed_picture(spec, content, path, at_s))

    def duplicates(self, least: float) -> "tuple[Space, list[Group]]":
        """The groups of near-duplicates."""
        from engines.library.duplicates import find_duplicates
        from engines.library.index import FROM_ROWS
        from engines.library.query import only_space

        space = only_space(self._spaces, self._library)
        wanted = self._index or (self._indexed(space) is not None) or len(space.live) >= FROM_ROWS
        return space, find_duplicates(space, least, self._built(space) if wanted and not self._exact else None)

    def _hits(self, space: "Space", vector: "Array") -> "list[Hit]":
        from engines.library.search import best_of, nearest

        if len(vector) != space.width:
            what = f"model {self._name} makes {len(vector)} numbers of the query, and {space.width} of pictures"
            raise UsageError(what, "correct text.output in its card, see docs/search.md")
        index = None if self._exact else self._built(space) if self._index else self._indexed(space)
        if index is None:
            return nearest(space, vector, self._most, self._every)
        return best_of(space, index.candidates(space, vector, self._most), self._most, self._every)

    def _indexed(self, space: "Space") -> "Index | None":
        from engines.library.index import opened

        return opened(self._table.folder, space)

    def _built(self, space: "Space") -> "Index | None":
        """The index with all rows; None where it would have to be built and usearch is not installed."""
        from engines.library.index import build

        try:
            return build(self._table.folder, space)
        except UsageError as error:
            if self._index:
                raise
            warn(f"{error.what}: all pictures are compared with all, which takes hours for a million; {error.hint}")
            return None


def _show_hits(
    title: str,
    space: "Space",
    hits: "Sequence[Hit]",
    every: bool,
    html: Path | None,
    as_json: bool,
    like: tuple[Path, float] | None,
) -> ExitCode:
    from cli.tables import list_of
    from engines.library.search import counts
    from engines.outputs.found import clock, hits_page, picture_of

    pictures, media = counts(space)
    if html is not None:
        shown = None if like is None else picture_of(str(like[0]), like[1])
        _write(html, *hits_page(title, hits, shown))
    if as_json:
        print(json.dumps([{"media": hit.media, "time": hit.time_s, "score": round(hit.score, 6)} for hit in hits]))
        return ExitCode.OK
    rows = [[[_near(hit.media)], f"{hit.score:.3f}", clock(hit.time_s)] for hit in hits]
    stdout().print(list_of(("media", "score", "time"), rows, left=1, gap=2))
    what = count(len(hits), "picture") if every else f"{len(hits):,}"
    say_sentence(f"{what} of {media:,} media with {count(pictures, 'picture')}, by {space.model}")
    return ExitCode.OK


def _show_groups(space: "Space", found: "Sequence[Group]", most: int, html: Path | None, as_json: bool) -> ExitCode:
    from cli.tables import list_of
    from engines.library.search import counts
    from engines.outputs.found import clock, groups_page

    (pictures, media), groups = counts(space), found[:most]
    summary = f"{count(len(found), 'group')} of near-duplicates"
    if html is not None:
        _write(html, *groups_page(f"{summary} among {media:,} media", groups, space))
    if as_json:
        print(json.dumps([_plain(space, group) for group in groups]))
        return ExitCode.OK
    rows: list[list[Given]] = []
    for number, group in enumerate(groups, start=1):
        rows.append([str(number), [_near(space.names[group.first])], "", "", ""])
        for copy in group.copies:
            times = clock(copy.time_s), clock(copy.original_s)
            rows.append(["", [_near(space.names[copy.media])], f"{copy.score:.3f}", *times])
    if groups:
        stdout().print(list_of(("group", "media", "score", "time", "original"), rows, left=2, gap=2))
    shown = f", {len(groups):,} of them shown" if len(groups) < len(found) else ""
    copies = sum(len(group.copies) for group in found)
    of = f"among {media:,} media with {count(pictures, 'picture')}, by {space.model}"
    say_sentence(f"{summary}{shown}, with {'1 copy' if copies == 1 else f'{copies:,} copies'}, {of}")
    return ExitCode.OK


def _plain(space: "Space", group: "Group") -> dict[str, Any]:
    copies = [
        {
            "media": space.names[copy.media],
            "score": round(copy.score, 6),
            "time": None if math.isnan(copy.time_s) else copy.time_s,
            "original_time": None if math.isnan(copy.original_s) else copy.original_s,
        }
        for copy in group.copies
    ]
    return {"media": space.names[group.first], "copies": copies}


def _write(html: Path, page: str, missing: int) -> None:
    from engines.outputs.found import write_page

    write_page(html, page)
    if missing:
        are = "1 picture is" if missing == 1 else f"{missing} pictures are"
        warn(f"{are} not on the page: the file is not where it was embedded, or cannot be read")


def _near(media: str) -> str:
    """A path, from the current folder on where it is in that."""
    inside = os.path.relpath(media) if os.path.isabs(media) else media
    return media if inside.startswith("..") else inside
