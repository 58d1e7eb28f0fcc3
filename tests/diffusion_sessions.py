"""Sessions of the tiny Stable Diffusions of tests/stable.py."""

from pathlib import Path
from typing import Any

from engines.content import ModelFiles
from engines.diffusion.session import DiffusionSession
from engines.models.diffusion_folder import DiffusionFolder
from engines.models.files import NewFiles
from engines.models.folder_kinds import take_folder
from schemas.model import ModelCard
from tests.stable import stable_folder


def taken(folder: Path) -> ModelFiles:
    """The files of a folder, as `model add` takes them."""
    with NewFiles(folder.parent / "store", lambda: None) as new:
        content = take_folder(folder, DiffusionFolder(), new).content
    assert isinstance(content, ModelFiles)
    return content


def opened(folder: Path, max_pixels: int = 1 << 20, together: bool = False) -> DiffusionSession:
    return opened_content(folder, taken(folder), max_pixels, together)


def opened_content(folder: Path, content: Any, max_pixels: int = 1 << 20, together: bool = False) -> DiffusionSession:
    """A session of the files that were taken of a folder, or made of them."""
    kind = DiffusionFolder()
    fields = {line.field: line.value for line in kind.lines(folder)}
    card = ModelCard(name="m", sha256="0" * 64, files=content.files, **fields)
    return DiffusionSession(content, kind.spec(card, content), max_pixels, together=together)


def session(tmp_path: Path, **given: Any) -> DiffusionSession:
    return opened(stable_folder(tmp_path / "m", **given))
