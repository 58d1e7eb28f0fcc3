"""The base of backends whose models are folders of files."""

from typing import ClassVar

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


class FilesBackend:
    """One core a session on the CPU. A subclass has a `name`, what it `needs`, and `open_files`."""

    name: ClassVar[str]
    needs: ClassVar[Needs]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session over the files of a folder. Raises ModelError, PluginMissing, DeviceLost."""
        if not isinstance(model, ModelFiles):
            why = f"model {card.name} is one file, and {self.name} needs a folder"
            raise ModelError(why, "add the folder of the model again")
        return self.open_files(model, card, device)

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """A session; its library is imported now. Raises as `open` does."""
        raise NotImplementedError
