"""Gives the results of a group of files their names: recorded in the ledger first, then put in place, file by file.

If the process is killed between the two, the ledger names files that are missing, and their inputs are done again.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.files import rename, writing
from engines.outputs.earlier import fits
from engines.outputs.names import there_already
from schemas.errors import OutputError
from workers.ledger import FileResult, Written
from workers.media_folder import Entry, MediaFolder
from workers.tally import Counted
from workers.watched import stamp_of

CHANGED = "it changed while it was read; run it again"
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


def place(media: MediaFolder, scratch: Path, made: Sequence[tuple[Entry, Files]]) -> int:
    """Put the files of entries in place, and count them; how many that are. Raises OutputError, and counts none then.

    An input that changed meanwhile is left out: it is new again. A file that appeared meanwhile is kept.
    """
    results: dict[str, FileResult] = {}
    moves: list[tuple[Path, Path]] = []
    moved: dict[Path, Path] = {}
    places: list[tuple[Entry, Counted | None, Files]] = []
    for number, (entry, files) in enumerate(made):
        if stamp_of(media.path(entry)) != entry.stamp:
            continue
        target, finals = _free(media, media.targets(entry), files)
        places.append((entry, _earlier(media, target != entry.target, finals.values()), finals))
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
        results[entry.name] = FileResult(entry.stamp, entry.digest, entry.target, written)
    media.ledger.record_all(results)
    for copy, final in moves:
        with writing(final), suppress(FileExistsError):
            rename(copy, final, replaces=False)
    for entry, earlier, finals in places:
        media.tally.name(entry.name, map(str, finals.values()))
        media.tally.done_as(earlier)
    media.tally.fail((entry.name for entry, _ in made if entry.name not in results), CHANGED)
    return len(results)


def place_whole(media: MediaFolder, target: Path, entries: Sequence[Entry]) -> None:
    """Put the files of a job in place that have a row of each of these entries, and count them. Raises OutputError.

    An input that changed meanwhile is new again.
    """
    made, kind = target.parent.glob(f"{target.name}.*"), entries[0].kind
    files = {each.name.removeprefix(target.name): each for each in made}
    best = next(iter(media.whole_targets(kind)))
    name, finals = _free(media, media.whole_targets(kind), files)
    earlier = _earlier(media, name != best, finals.values())
    written = {f"{name}{end}": _written(files[end]) for end in files}
    results = {
        entry.name: FileResult(entry.stamp, entry.digest, "", written)
        for entry in entries
        if stamp_of(media.path(entry)) == entry.stamp
    }
    media.ledger.record_all(results)
    for end, final in finals.items():
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(files[end], final)  # by equal content, or by what may be replaced
    if results:
        media.tally.name(name_of(list(results)), map(str, finals.values()), len(results))
    media.tally.done_as(earlier, len(results))
    media.tally.fail((entry.name for entry in entries if entry.name not in results), CHANGED)


def name_of(names: Sequence[str]) -> str:
    """What several inputs are called together."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


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


def _earlier(media: MediaFolder, beside: bool, finals: Iterable[Path]) -> Counted | None:
    """Whether results equal those that are there, or lie beside others; None where none are there, or are replaced."""
    if not media.overwrite and all(map(os.path.lexists, finals)):
        return "equal"
    return "beside" if beside else None


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
