"""Gives the results of a group of files their names: recorded in the ledger first, then put in place, file by file.

If the process is killed between the two, the ledger names files that are missing, and their inputs are done again.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.files import rename, writing
from engines.outputs.earlier import fits
from engines.outputs.names import there_already
from schemas.errors import OutputError
from workers.ledger import FileResult, Written
from workers.media_folder import Entry, MediaFolder
from workers.watched import stamp_of

Files = Mapping[str, Path]
"""What was made of one input: finished files, in the scratch folder or of a copy, by the ends of their paths behind the
target, as `.txt` or, of an item, `/item.wav`.
"""


def token(number: int, entry: Entry) -> str:
    """What an image is called in its job: short and unique, whatever its path is."""
    return f"{number:04}{Path(entry.name).suffix.lower()}"


def made_of(target: Path, number: int, entry: Entry, alone: bool, media: MediaFolder) -> Files:
    """The files that a job at `target` made of one of its inputs; empty where it failed."""
    if entry.timed or entry.alone:
        beside = [each for each in target.parent.iterdir() if each.name.startswith(f"{target.name}.")]
        inside = [*target.iterdir()] if target.is_dir() else []
        return {str(each).removeprefix(str(target)): each for each in sorted((*beside, *inside))}
    found = {}
    for suffix in media.each:
        path = target / f"{Path(token(number, entry)).stem}.{suffix}"
        path = target.with_name(f"{target.name}.{suffix}") if alone and not path.exists() else path
        if not path.exists():
            return {}
        found[f".{suffix}"] = path
    if ".json" in found:
        _named(found[".json"], token(number, entry), entry.name)
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
        target, finals = _free(media, media.targets(entry), files)
        _count(media, 1, target != entry.target, finals.values())
        written: dict[str, Written] = {}
        for end, final in finals.items():
            there = final
            if media.overwrite or not os.path.lexists(final):
                there = scratch / f"{number}-{len(written)}"
                with writing(final):
                    _move(files[end], there, scratch, moved)
                    final.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileNotFoundError):
                        final.unlink()
                moves.append((there, final))
            written[f"{target}{end}"] = _written(there)
        media.tally.name(entry.name, map(str, finals.values()))
        results[entry.name] = FileResult(entry.stamp, entry.digest, entry.target, written)
    media.ledger.record_all(results)
    for copy, final in moves:
        with writing(final), suppress(FileExistsError):
            rename(copy, final, replaces=False)
    media.tally.count("done", len(results))


def place_whole(media: MediaFolder, target: Path, entries: Sequence[Entry], lost: Collection[str]) -> list[Path]:
    """Put the files of a job of all these entries in place; there are none where all failed. Raises OutputError.

    Those whose names are in `lost` are not in the files. An input that changed meanwhile is new again.
    """
    made, kind = target.parent.glob(f"{target.name}.*"), entries[0].kind
    files = {each.name.removeprefix(target.name): each for each in made}
    if not files:
        return []
    best = next(iter(media.whole_targets(kind)))
    name, finals = _free(media, media.whole_targets(kind), files)
    _count(media, sum(entry.name not in lost for entry in entries), name != best, finals.values())
    written = {f"{name}{end}": _written(files[end]) for end in files}
    results = {}
    for entry in entries:
        if stamp_of(media.path(entry)) == entry.stamp and entry.name not in lost:
            results[entry.name] = FileResult(entry.stamp, entry.digest, "", written)
    media.ledger.record_all(results)
    for end, final in finals.items():
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(files[end], final)  # by equal content, or by what may be replaced
    return list(finals.values())


def _written(path: Path) -> Written:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _free(media: MediaFolder, targets: Iterable[str], files: Files) -> tuple[str, Files]:
    """The first target where files may lie, and their paths there. Raises OutputError when there is none."""
    target = ""
    for target in targets:
        finals = {end: media.out / f"{target}{end}" for end in files}
        if media.overwrite or fits({files[end]: final for end, final in finals.items()}):
            return target, finals
    raise there_already(media.out / target)


def _count(media: MediaFolder, number: int, beside: bool, finals: Iterable[Path]) -> None:
    """Count inputs whose results equal those that are there, or lie beside others."""
    if not media.overwrite and all(map(os.path.lexists, finals)):
        media.tally.count("equal", number)
    elif beside:
        media.tally.count("beside", number)


def _move(source: Path, copy: Path, scratch: Path, moved: dict[Path, Path]) -> None:
    """Move a file, or copy one that was moved before or is the result of another input."""
    if source in moved or not source.is_relative_to(scratch):
        shutil.copyfile(moved.get(source, source), copy)
    else:
        os.replace(source, copy)
        moved[source] = copy


def _named(path: Path, token: str, name: str) -> None:
    """Write an input's own name for its token into a line of JSON."""
    try:
        row = json.loads(path.read_bytes())
        path.write_text(json.dumps({**row, "name": name}, ensure_ascii=False) + "\n")
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path}: {error}", "please report it") from error
