"""text-tower: the graph of texts of a model that compares pictures with texts, on the CPU and by CUDA on a GPU."""

from engines.backends.files import FilesBackend
from engines.content import ModelFiles
from engines.extras import SEARCH
from engines.ports import Device, Session
from schemas.model import TEXT_TOWER, ModelSpec


class TextTowerBackend(FilesBackend):
    """Opens sessions of ONNX Runtime."""

    name = TEXT_TOWER
    needs = SEARCH

    def open_files(self, model: ModelFiles, card: ModelSpec, device: Device) -> Session:
        """See the base."""
        from engines.inference.resident import place_of
        from engines.text_tower import TextTower

        return TextTower(model, card, place_of(card.name, device.gpu, self._settings.tf32))
