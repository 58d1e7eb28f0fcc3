"""PP-OCR's three networks: they find lines of text, tell which are upside down, and read them.

The one that reads has its characters in its metadata; the others are known by the file's name and by their output.
Sources: PaddleOCR, tools/infer/predict_det.py, predict_cls.py, predict_rec.py; RapidOCR, which stores the characters.
"""

import re
from collections.abc import Sequence
from typing import Any

from engines.models.companions.base import Line, Model, Sure

_VALUES: dict[str, Any] = {"colours": "bgr", "scale": 1 / 255, "mean": 0.5, "std": 0.5}
_FINDS = {**_VALUES, "size": "source", "multiple": 32, "resize": "bilinear"}
_HEIGHT = 48  # of lines since PP-OCRv3
_UPRIGHT = {**_VALUES, "size": [_HEIGHT, 192]}


def look(model: Model) -> Sequence[Line]:
    """Head and picture of a network of PP-OCR."""
    picture, name = model.picture, model.path.stem.lower()
    if picture is None or len(model.outputs) != 1:
        return []
    shape = model.outputs[0].shape
    if characters := model.metadata.get("character", ""):
        return _reader(model, characters.splitlines(), shape[-1])
    if "ocr" not in name:
        return []
    if re.search(r"(^|[^a-z])det([^a-z]|$)", name) and len(shape) == 4:
        values = _FINDS if picture.height is None else _VALUES
        return _lines(picture.path, {"kind": "text_boxes"}, values, "a detector of PP-OCR by its name")
    if re.search(r"(^|[^a-z])cls([^a-z]|$)", name) and shape[-1] == 2:
        options = {"kind": "classify", "labels": ["0", "180"], "top": 1}
        return _lines(picture.path, options, _UPRIGHT, "PP-OCR's classifier of lines upside down by its name")
    return []


def _reader(model: Model, characters: list[str], classes: int | str) -> list[Line]:
    """The characters are the classes behind the blank; the last class is the space, which metadata leave out."""
    assert model.picture is not None
    if isinstance(classes, int) and len(characters) + 2 == classes:
        characters = [*characters, " "]
    values = _VALUES
    if model.picture.width is None:
        values = {**_VALUES, "size": "source", "shape": ["N", 3, _HEIGHT, "W"]}
    why = f"its metadata has {len(characters)} characters"
    return _lines(model.picture.path, {"kind": "text", "labels": characters}, values, why)


def _lines(path: str, head: dict[str, Any], values: dict[str, Any], why: str) -> list[Line]:
    return [
        *(Line(f"heads.0.{field}", value, Sure.certain, why) for field, value in head.items()),
        *(Line(f"{path}.{field}", value, Sure.certain, why) for field, value in values.items()),
    ]
