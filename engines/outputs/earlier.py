"""The one rule for results that are there already: they are kept, unless it is allowed to replace them.

New results that equal them are not written; others are written beside them, under the next free name.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.files import delete_files

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """Earlier results beside new ones: `equal` files have the content of the new ones; `kept`: others are there."""

    equal: Sequence[Path] = ()
    kept: bool = False

    @property
    def words(self) -> str:
        """The same, to be put behind the names of the results."""
        return ", equal to those that were there" if self.equal else ", beside earlier ones" if self.kept else ""


def compared(earlier: Iterable[Path], target: Path, files: Sequence[Path]) -> Comparison:
    """Compare the new `files` of `target`, whose names begin with its own, with those of `earlier` targets."""
    kept = False
    for each in earlier:
        rests = {file: str(file.relative_to(target.parent)).removeprefix(target.name) for file in files}
        there = {file: target.parent / f"{each.name}{rest}" for file, rest in rests.items()}
        if files and all(equal(*pair) for pair in there.items()):
            return Comparison(equal=tuple(there.values()))
        kept = kept or _has_results(each)
    return Comparison(kept=kept and bool(files))


def settled(earlier: Iterable[Path], target: Path, files: Sequence[Path]) -> tuple[Sequence[Path], Comparison]:
    """Delete the new `files` if equal ones are there. Returns where the results are, and what was there."""
    found = compared(earlier, target, files)
    if found.equal:
        delete_files(files, target)
    return found.equal or files, found


def fits(files: Mapping[Path, Path]) -> bool:
    """Whether each file equals the one that is at its final path, or nothing is there."""
    return all(not os.path.lexists(final) or equal(file, final) for file, final in files.items())


def equal(one: Path, other: Path) -> bool:
    """Whether two regular files have the same content; False where one is missing or cannot be read."""
    try:
        first, second = one.lstat(), other.lstat()
        if not (stat.S_ISREG(first.st_mode) and stat.S_ISREG(second.st_mode) and first.st_size == second.st_size):
            return False
        with one.open("rb") as left, other.open("rb") as right:
            while block := left.read(_BLOCK):
                if block != right.read(_BLOCK):
                    return False
        return True
    except OSError:
        return False


def _has_results(target: Path) -> bool:
    names = os.listdir(target.parent) if target.parent.is_dir() else []
    return any(
        name == target.name or name.startswith(f"{target.name}.") for name in names if not name.endswith(".part")
    )
