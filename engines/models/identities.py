"""The card of a user's model as workers know it, without loading the model again each time.

A model's identity is the hash of its graph with the card's arithmetic in front, which takes seconds to make. It
follows from the card that is kept, which has the hash of the ONNX file, and from the code that makes it; so it is kept
under the hash of both.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from engines.content import Content, ModelFiles
from engines.files import atomic_write
from engines.models.catalogue import models_folder, own_model
from schemas.model import ModelSpec

_CODE = ("arithmetic", "batchless", "front", "pictures", "reading", "sounds", "surgery")


def kept_spec(name: str, cache: Path) -> tuple[ModelSpec, Content]:
    """The card of the user's model `name`, and its further files; the graph of the content may be empty.

    Raises ModelError as `own_model` does.
    """
    path = models_folder() / f"{name}.toml"
    try:
        text = path.read_bytes()
        code = b"".join(Path(__file__).with_name(f"{each}.py").read_bytes() for each in _CODE)
    except OSError:
        return own_model(name)
    known = cache / "identities" / f"{hashlib.sha256(text + code).hexdigest()}.json"
    with suppress(OSError, ValueError):
        spec = ModelSpec.model_validate_json(known.read_bytes())
        if path.with_suffix(".onnx").is_file():
            return spec, ModelFiles(b"", spec.files, models_folder())
    spec, content = own_model(name)
    if b"sha256 = " in text:  # so the card is that of one ONNX file
        with suppress(OSError):  # it only saves time
            atomic_write(known, spec.model_dump_json().encode())
    return spec, content
