"""Names of result files: no two inputs share a name, and without `overwrite` no existing file is replaced.

The result of `clip.mp4` is `clip.PIPELINE.*`. If that is taken, it is `clip.mp4.PIPELINE.*`, then
`clip.mp4-2.PIPELINE.*` and so on; `earlier.py` says what becomes of new results that equal those that are there.
"""

import fcntl
import functools
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path, PurePosixPath
from typing import IO, Self

from engines.files import writing
from schemas.errors import OutputError
from schemas.text import printable

_LIST = ".rigflow-names-"  # hidden file with the names that a process has reserved; the process holds its lock
_LONGEST_SUFFIX = ".coco.json.part"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The input `name` whose result needs a name in `folder`.

    `parent` is the name of the input's folder, where other inputs have its name; the first `skip` choices are not used.
    `owned` returns whether a name belongs to another input. `exact` is the only name that it may have, if there is one;
    folders may stand before it. `pipeline` is "" where the result is called as the input.
    """

    folder: Path
    name: str
    pipeline: str
    parent: str = ""
    skip: int = 0
    exact: str = ""
    owned: Callable[[Path], bool] = lambda _: False

    def choices(self) -> Iterator[str]:
        """Yield names without suffix, the best first."""
        stem, full = clean_stem(self.name), clean(self.name)
        names = [stem, full]
        if self.parent:
            full = f"{clean(self.parent)}-{full}"
            names.append(full)
        end = f".{self.pipeline}" if self.pipeline else ""
        for name in islice(names, self.skip, None):
            yield f"{name}{end}"
        for number in count(2):
            yield f"{full}-{number}{end}"


class OutputNames:
    """The names that this process has reserved in `folder` and the folders in it; use it as a context manager.

    Other processes that reserve names in the same folder see them. With `overwrite`, existing files may be
    replaced, but never one of `inputs`.
    """

    def __init__(self, folder: Path, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._overwrite = overwrite
        self._inputs = list(inputs)
        self._reserved: set[Path] = set()
        self._list: IO[str] | None = None
        self._path = folder / f"{_LIST}{uuid.uuid4().hex[:12]}"

    def reserve(self, wanted: Wanted) -> Path:
        """Return the path, without suffix, of one result. Raises OutputError."""
        [found] = self.reserve_all([wanted])
        if isinstance(found, OutputError):
            raise found
        return found

    def reserve_all(self, wanted: Sequence[Wanted]) -> list[Path | OutputError]:
        """Return the paths, without suffix, of many results; an error for each name that the file system rejects.

        Raises OutputError if nothing can be written to the folder.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(self._folder):
                taken = _Taken(self._reserved_elsewhere(), self._overwrite, self._inputs)
                found = [self._reserve(each, taken) for each in wanted]
                self._note()
        return found

    def earlier(self, wanted: Wanted, target: Path) -> list[Path]:
        """Return the targets that `target` was reserved after, and that no other input of this process has."""
        if self._overwrite or wanted.exact:
            return []
        passed = takewhile(lambda each: each != target, (wanted.folder / choice for choice in wanted.choices()))
        return [each for each in dict.fromkeys(passed) if each not in self._reserved and not wanted.owned(each)]

    def release(self, target: Path) -> None:
        """Give up a reservation: the result is written, or its job ended without one. Raises OutputError."""
        with writing(self._folder), _locked(self._folder):  # this excludes other threads, too
            self._reserved.discard(target)
            self._note()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reserved.clear()
        if self._list is not None:
            with suppress(OSError):
                self._path.unlink()
            with suppress(OSError):  # on a full disk what it holds in memory cannot be written
                self._list.close()
            self._list = None

    def _reserve(self, wanted: Wanted, taken: "_Taken") -> Path | OutputError:
        if wanted.exact:
            return self._reserve_exactly(wanted.folder / wanted.exact, wanted, taken)
        for choice in wanted.choices():
            target = wanted.folder / choice
            try:
                with writing(target), suppress(FileNotFoundError):
                    os.lstat(f"{target}{_LONGEST_SUFFIX}")
            except OutputError as error:
                return error
            if target not in self._reserved and not taken.has(target) and not wanted.owned(target):
                self._reserved.add(target)
                return target
        raise AssertionError("numbers do not end")

    def _reserve_exactly(self, target: Path, wanted: Wanted, taken: "_Taken") -> Path | OutputError:
        if target in self._reserved or taken.has(target) or wanted.owned(target):
            return there_already(target)
        self._reserved.add(target)
        return target

    def _reserved_elsewhere(self) -> set[Path]:
        """Return the names that other processes have reserved; lists of ended processes are removed."""
        names: set[Path] = set()
        for path in self._folder.glob(f"{_LIST}*"):
            if path == self._path:
                continue
            with suppress(OSError, TypeError, ValueError), path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    names.update(self._folder / name for name in json.load(file))
                else:
                    path.unlink()
        return names

    def _note(self) -> None:
        if self._list is None:
            self._list = self._path.open("w")
            fcntl.flock(self._list, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._list.seek(0)
        self._list.truncate()
        json.dump(sorted(os.path.relpath(target, self._folder) for target in self._reserved), self._list)
        self._list.flush()


class _Taken:
    """The names that are not free, apart from those that this process reserved."""

    def __init__(self, elsewhere: set[Path], overwrite: bool, inputs: Sequence[Path]) -> None:
        self.elsewhere = elsewhere
        self._overwrite = overwrite
        self._inputs = inputs
        self._there: dict[Path, set[str]] = {}

    def has(self, target: Path) -> bool:
        return target in self.elsewhere or target.name in self._in(target.parent)

    def _in(self, folder: Path) -> set[str]:
        """Return the names of a folder's files that must stay, cut at each of their dots."""
        if folder not in self._there:
            names = self._inputs_in(folder)
            if not self._overwrite and folder.is_dir():
                names += [name for name in os.listdir(folder) if not name.endswith(".part")]
            self._there[folder] = {base for name in names for base in _bases(name)}
        return self._there[folder]

    def _inputs_in(self, folder: Path) -> list[str]:
        real = functools.cache(os.path.realpath)  # resolving a path is slow: each folder's once
        here = real(str(folder))
        paths = (str(path).rpartition("/") for path in self._inputs)
        return [name for parent, slash, name in paths if real(parent + slash) == here]


def there_already(target: Path) -> OutputError:
    """The error of a result that has one name only, which is taken."""
    return OutputError(f"{target}.* is there already", "give --overwrite, or another template as --out")


def clean(name: str) -> str:
    """Return a safe file name made of any name: its last part, with `_` for unprintable characters.

    Letters of all scripts and spaces stay. U+FFFD is what messages have in place of an unprintable character.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    readable = "".join(each if printable(each) == each and each != "\ufffd" else "_" for each in last)
    return readable if readable.strip(".") else "result"


def clean_stem(name: str, most_bytes: int | None = None) -> str:
    """Return what the result of an input of this name is called, without pipeline and suffix.

    `most_bytes`: of its UTF-8; what is longer is cut between two characters.
    """
    stem = clean(PurePosixPath(name).stem)
    return stem if most_bytes is None else stem.encode()[:most_bytes].decode(errors="ignore")


def unused(path: Path) -> Path:
    """Return `path`, or if a file exists there, the path with a number after the name's first part: `clip-2.x.npz`."""
    stem, dot, suffix = path.name.partition(".")
    numbered = (path.with_name(f"{stem}-{number}{dot}{suffix}") for number in count(2))
    return path if not os.path.lexists(path) else next(each for each in numbered if not os.path.lexists(each))


def _bases(name: str) -> Iterator[str]:
    """Yield `a.b.c`, `a.b` and `a` of `a.b.c`: the names without suffix that it may belong to."""
    while name:
        yield name
        name = name.rpartition(".")[0]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. If it cannot be locked (NFS), two processes may choose the same name, and one of them fails."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
