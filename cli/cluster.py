"""`rigflow cluster`: groups media that are alike, by their results."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Json, Overwrite, ends_well
from cli.text import cell, one_line, say, say_json, stdout, warn
from schemas.errors import ExitCode, RigflowError, UsageError

if TYPE_CHECKING:
    from cli.tables import Rows
    from engines.outputs.clusters import Shown
    from engines.similarity import Descriptors


@ends_well
def cluster(
    results: Annotated[
        list[Path], typer.Argument(help="Results of fingerprint, of clip-features or of embed.", metavar="RESULT...")
    ],
    media: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of the videos, for pictures; folders in it too. Default: the results' and this one.",
            metavar="DIR",
        ),
    ] = None,
    similarity: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Mean similarity, 0 to 1, that keeps two groups together.", metavar="COSINE"
        ),
    ] = 0.8,
    duplicate: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Similarity from which on two are near-duplicates.", metavar="COSINE"),
    ] = 0.95,
    out: Annotated[
        Path | None, typer.Option(help="Folder for contact sheets and clusters.jsonl; made if missing.", metavar="DIR")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> ExitCode:
    """Group media that are alike.

    Prints the groups, and near-duplicates in them. --out writes them as clusters.jsonl and as contact sheets,
    clusters.html and clusters.png.

    Example: rigflow cluster results/*.fingerprint.npz --media videos --out alike
    """
    from cli.output_folder import prepare_folder
    from engines.clusters import find_clusters
    from engines.outputs.clusters import FILES, Shown, rows, summary, write_clusters

    described = _read(results)
    if media and out is None:
        raise UsageError("--media is for the pictures of contact sheets", "give --out DIR, or leave --media out")
    if out is not None:
        prepare_folder(out)
        for name in () if overwrite else FILES:
            if (out / name).exists():
                raise UsageError(f"{out / name} is there", "give --overwrite to replace it, or another --out")
    clusters = find_clusters([each for _, _, each in described], similarity, duplicate)
    shown = [Shown(name, str(path)) for name, path, _ in described]
    paths = [] if out is None else write_clusters(out, clusters, _pictures(described, media))
    if as_json:
        say_json({"clusters": list(rows(clusters, shown)), "files": list(map(str, paths))})
        return ExitCode.OK
    if out is None:
        stdout().print(_table(list(rows(clusters, shown))))
    say(summary(clusters))
    if len(clusters) == 1 and len(shown) > 2:
        alike = f"{clusters[0].similarity:.4f} on average"
        warn(f"all are alike, {alike}; a higher --similarity separates them")
    for path in paths:
        say(path)
    return ExitCode.OK


def _table(clusters: list[dict[str, Any]]) -> "Rows":
    """A row for each media: its cluster, how like the first one it is, and what it is a copy of."""
    from cli.tables import list_of

    made = [
        (
            str(row["cluster"]),
            one_line(each["name"]),
            f"{each['similarity']:.3f}" if number else "",
            cell(f"{each['duplicate_of']}{_offset(each['offset_s'])}" if each["duplicate_of"] is not None else ""),
        )
        for row in clusters
        for number, each in enumerate(row["media"])
    ]
    return list_of(
        ("cluster", "media", "similarity", "copy of"), made, left=2, unless={"similarity": "", "copy of": ""}
    )


def _offset(offset_s: float) -> str:
    return f" {offset_s:+.1f} s" if abs(offset_s) >= 0.05 else ""


def _read(results: list[Path]) -> "list[tuple[str, Path, Descriptors]]":
    """Name, result file and descriptors of every media; names tell them apart. Raises UsageError.

    Empty results are left out where others are not.
    """
    from engines.similarity import NoWindows, load_media

    found, empty = [], []
    for path in dict.fromkeys(results):
        try:
            found += [(name or _base(path), path, described) for name, described in load_media(path).items()]
        except NoWindows as error:
            empty.append(error)
    if empty and not found:
        raise empty[0]
    for each in empty:
        warn(f"left out: {each}")
    names = Counter(name for name, _, _ in found)
    return [(name if names[name] == 1 else f"{path.parent}/{name}", path, described) for name, path, described in found]


def _base(result: Path) -> str:
    """`clip` of clip.fingerprint.npz, as `rigflow run` names results."""
    return Path(result.stem).stem


def _pictures(described: "list[tuple[str, Path, Descriptors]]", folders: list[Path] | None) -> "list[Shown]":
    """Each media with a picture from its source file, if that file is found."""
    from engines.outputs.clusters import PICTURE, Shown
    from engines.outputs.thumbnail import thumbnail

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(f"{folder}: not a folder", "give --media the folder of the videos")
    found = _files(path for folder in folders or () for path in sorted(folder.rglob("*")))
    shown, without = [], 0
    for name, result, descriptors in described:
        if not folders:
            found = _files(path for folder in (result.parent, Path()) for path in sorted(folder.iterdir()))
        picture = None
        near = {result.parent.name, Path(name).parent.name}  # of two files of one name
        for file in sorted(found[name.rpartition("/")[2]], key=lambda path: path.parent.name not in near):
            try:
                picture = thumbnail(file, _typical_s(descriptors), PICTURE)
                break
            except RigflowError:
                continue  # its content is no video, whatever its name; the tile stays blank
        without += picture is None
        shown.append(Shown(name, str(result), picture))
    if without:
        hint = "their files are not in the folder that --media names" if folders else "give their folder by --media"
        warn(f"no picture for {without} of {len(shown)}: {hint}")
    return shown


def _files(paths: Iterable[Path]) -> Mapping[str, Sequence[Path]]:
    """Files that may be media, by their names and by these without suffix."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix not in (".npz", ".jsonl", ".html", ".part") and path.is_file():
            for name in {path.name, path.stem}:
                found[name].append(path)
    return found


def _typical_s(descriptors: "Descriptors") -> float:
    """The start in seconds of the window that is most like all others."""
    mean = descriptors.vectors.mean(axis=0)
    return float(descriptors.times[(descriptors.vectors @ mean).argmax()] - descriptors.times[0])
