"""Models that installed packages have as files: taken from there where nothing is kept by their names."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from engines.models.card_file import read_file
from engines.models.ge2e import encoder_of
from engines.models.shipped_cards import shipped_cards
from schemas.model import ModelCard


class _Place(NamedTuple):
    """A file of a package, and the fields of its card that its graph does not say; none: those of the shipped card."""

    package: str
    file: str
    inputs: tuple[Mapping[str, Any], ...] = ()
    read: Callable[[Path], bytes | None] = read_file


_SOUND = {"name": "input", "rate": 16_000, "samples": 512, "context": 64}
_PLACES: Mapping[str, tuple[_Place, ...]] = {
    "silero-vad": (
        _Place(
            "faster_whisper",
            "assets/silero_vad_v6.onnx",
            (_SOUND, {"name": "h", "state": {"output": "hn"}}, {"name": "c", "state": {"output": "cn"}}),
        ),
    ),
    "speaker-encoder": (_Place("resemblyzer", "pretrained.pt", read=encoder_of),),
}


def packaged_model(name: str) -> tuple[Path, ModelCard, bytes] | None:
    """Return file, card and content of a model that an installed package has; None without it. Raises ModelError.

    The package is not imported.
    """
    for place in _PLACES.get(name, ()):
        spec = find_spec(place.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / place.file
            if path.is_file() and (body := place.read(path)) is not None:
                card = ModelCard.model_validate({"name": name, "inputs": place.inputs or shipped_cards()[name].inputs})
                return path, card, body
    return None
