"""text-tower: the graph of texts of a model that compares pictures with texts, on the CPU and by CUDA on a GPU."""

from engines.content import Content, ModelFiles
from engines.extras import Needs
from engines.ports import Device, LoadedEngine, Session
from schemas.errors import ModelError
from schemas.model import TEXT_TOWER, ModelSpec
from schemas.settings import Settings


class TextTowerBackend:
    """One core a session on the CPU."""

    name = TEXT_TOWER
    needs = Needs(("tokenizers",), "search")

    def __init__(self, settings: Settings) -> None:
        self._tf32 = settings.tf32

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ONNX Runtime, which is imported now. Raises ModelError."""
        from engines.inference.resident import place_of
        from engines.text_tower import TextTower

        if not isinstance(model, ModelFiles):
            raise ModelError(f"model {card.name} has no text tower", "add the folder of the model, with its tokenizer")
        place = place_of(card.name, device.gpu, self._tf32)
        return TextTower(model, card, place)
