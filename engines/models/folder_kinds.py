"""Models that are folders without an ONNX file: one class for each kind, which recognises and describes them.

The registry has the classes, each by the name of the backend that runs its models.

Such a model is its main file, a small one of settings, and its further files; a backend of its own runs it. It is
stored as `NAME.json`, which is the main file, with its card and its files beside it as those of any model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from engines.content import Content, ModelFiles
from engines.models.companions.base import Line
from engines.models.files import NewFiles
from engines.models.folders import Taken
from engines.models.given import check_own
from engines.part import Array
from engines.registry import exists, load, names
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec


class FolderKind(Protocol):
    """What is known of the folders that one backend runs.

    `main` is the name of the main file; `files`: names or patterns of the further files, and why they are taken.
    """

    main: str
    files: Mapping[str, str]

    def fits(self, folder: Path) -> bool:
        """Whether a folder is such a model, by the names of its files."""
        ...

    def lines(self, folder: Path) -> Sequence[Line]:
        """The card of a model. Raises ModelError: files of it are missing, damaged, or of another kind of network."""
        ...

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """The card in the form in which it travels. Raises ModelError."""
        ...


@runtime_checkable
class TakesFiles(Protocol):
    """A kind of folder that takes its files by itself: they lie in folders below, or are ONNX files with weights."""

    def take(self, folder: Path, given: Path, new: NewFiles) -> Taken:
        """Take the files of a model; `given` is what was added: the folder, or a file of it. Raises ModelError,
        StoreError.
        """
        ...


@runtime_checkable
class Draws(Protocol):
    """A kind of folder whose models draw pictures, which can be tried by drawing one."""

    def drawn(self, spec: ModelSpec, content: Content) -> tuple[str, Array]:
        """Return in words what was drawn, and the picture `[H, W, 3]` uint8. Raises ModelError, PluginMissing."""
        ...


@runtime_checkable
class HasPrecisions(TakesFiles, Protocol):
    """A kind of folders with graphs in ONNX, possibly several of each in precisions."""

    def folder_of(self, given: Path) -> Path | None:
        """The folder of a file that says which precision is wanted; None if it is no such file."""
        ...


def kinds() -> list[FolderKind]:
    """All kinds of folders."""
    return [load("folders", name)() for name in names("folders")]


def folder_of(given: Path) -> Path:
    """The folder of a model of which a file is given that stands for the whole; otherwise the given path."""
    found = (kind.folder_of(given) for kind in kinds() if isinstance(kind, HasPrecisions))
    return next((folder for folder in found if folder is not None), given)


def kind_of_folder(folder: Path) -> FolderKind | None:
    """The kind of a folder; None if it is no such model."""
    return next((kind for kind in kinds() if fits(kind, folder)), None)


def kind_of_backend(backend: str | None) -> FolderKind | None:
    """The kind of the models that a backend runs; None if these are ONNX files."""
    if backend is None or not exists("folders", backend):
        return None
    kind: FolderKind = load("folders", backend)()
    return kind


def take_folder(folder: Path, kind: FolderKind, new: NewFiles, given: Path | None = None) -> Taken:
    """Take the files of a model; `given`: see `TakesFiles.take`. Raises ModelError, StoreError."""
    if isinstance(kind, TakesFiles):
        return kind.take(folder, given or folder, new)
    check_own(folder / kind.main, folder)
    try:
        main = (folder / kind.main).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {folder / kind.main}: {error.strerror}", "check the path") from error
    taken = Taken(main)
    inside = sorted(each for each in folder.iterdir() if each.is_file() and each.name != kind.main)
    for each in inside:
        why = next((why for pattern, why in kind.files.items() if each.match(pattern)), "")
        if why:
            check_own(each, folder)
            taken.why[new.take(each, each.name)] = why
        elif not each.name.startswith("."):
            taken.left_out.append(each.name)
    taken.content = ModelFiles(main, taken.files, new.folder)
    return taken


def described(card: ModelCard, content: Content) -> ModelSpec | None:
    """The travelling card of a model that is a folder; None for an ONNX file. Raises ModelError."""
    kind = kind_of_backend(card.backend)
    if kind is None:
        return None
    if not isinstance(content, ModelFiles):
        why = f"model `{card.name}` is one file, and backend {card.backend} needs a folder"
        raise ModelError(why, "add its folder")
    return kind.spec(card, content)


def fits(kind: FolderKind, folder: Path) -> bool:
    """Whether a folder is a model of a kind."""
    return folder.is_dir() and (folder / kind.main).is_file() and kind.fits(folder)
