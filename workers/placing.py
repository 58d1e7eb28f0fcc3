"""Gives the results of a group of files their names: recorded in the ledger first, then put in place, file by file.

If the process is killed between the two, the ledger names files that are missing, and their inputs are done again.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.files import rename, writing
from schemas.errors import OutputError
from workers.ledger import FileResult
from workers.media_folder import Entry, MediaFolder
from workers.watched import stamp_of

Files = Mapping[str, Path]
"""What was made of one input: a finished file of each suffix, in the scratch folder or of a copy."""


def token(number: int, entry: Entry) -> str:
    """What an image is called in its job: short and unique, whatever its path is."""
    return f"{number:04}{Path(entry.name).suffix.lower()}"


def made_of(target: Path, number: int, entry: Entry, alone: bool, media: MediaFolder) -> Files:
    """The files that a job at `target` made of one of its inputs; empty where it failed."""
    if entry.timed:
        beside = (each for each in target.parent.iterdir() if each.name.startswith(f"{target.name}."))
        return {each.name.removeprefix(f"{target.name}."): each for each in beside}
    found = {}
    for suffix in media.each:
        path = target / f"{Path(token(number, entry)).stem}.{suffix}"
        path = target.with_name(f"{target.name}.{suffix}") if alone and not path.exists() else path
        if not path.exists():
            return {}
        found[suffix] = path
    if "json" in found:
        _named(found["json"], token(number, entry), entry.name)
    return found


def place(media: MediaFolder, scratch: Path, made: Sequence[tuple[Entry, Files]]) -> None:
    """Put the files of entries in place. Raises OutputError.

    An input that changed meanwhile is left out: it is new again. A file that appeared meanwhile is kept.
    """
    results: dict[str, FileResult] = {}
    moves: list[tuple[Path, Path]] = []
    moved: dict[Path, Path] = {}
    for number, (entry, files) in enumerate(made):
        if stamp_of(media.path(entry)) != entry.stamp:
            media.tally.fail([entry.name], "it changed while it was read; run it again")
            continue
        names = {suffix: f"{entry.target}.{suffix}" for suffix in files}
        if not all(map(media.may_replace, names.values())):
            media.tally.count("kept")
            continue
        written = {}
        for suffix, name in names.items():
            copy = scratch / f"{number}.{suffix}"
            final = media.out / name
            with writing(final):
                source = files[suffix]
                if source in moved or not source.is_relative_to(scratch):
                    shutil.copyfile(moved.get(source, source), copy)
                else:
                    os.replace(source, copy)
                    moved[source] = copy
                final.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    final.unlink()
            status = copy.stat()
            written[name] = status.st_size, status.st_mtime_ns
            moves.append((copy, final))
        media.tally.name(entry.name, (str(media.out / name) for name in written))
        results[entry.name] = FileResult(entry.stamp, entry.digest, entry.target, written)
    media.ledger.record_all(results)
    for copy, final in moves:
        with writing(final), suppress(FileExistsError):
            rename(copy, final, replaces=False)
    media.tally.count("done", len(results))


def place_whole(media: MediaFolder, target: Path, name: str) -> list[Path]:
    """Put the files of a job of many inputs in place, under `name` or one with a number. Raises OutputError."""
    files = {each.name.removeprefix(target.name): each for each in target.parent.glob(f"{target.name}*")}
    number, stem = 1, name
    while not media.overwrite and any(os.path.lexists(media.out / f"{stem}{end}") for end in files):
        number += 1
        stem = f"{name}-{number}"
    placed = []
    for end, file in files.items():
        final = media.out / f"{stem}{end}"
        with writing(final):
            os.replace(file, final)
        placed.append(final)
    return placed


def _named(path: Path, token: str, name: str) -> None:
    """Write an input's own name for its token into a line of JSON."""
    try:
        row = json.loads(path.read_bytes())
        path.write_text(json.dumps({**row, "name": name}, ensure_ascii=False) + "\n")
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path}: {error}", "please report it") from error
