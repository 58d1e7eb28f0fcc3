"""The metadata that Ultralytics writes into the ONNX file: names, task, imgsz, stride, license."""

import ast
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from engines.models.companions.base import Line, Model, Sure

_HEADS = {"detect": "detect", "segment": "instances", "pose": "keypoints", "obb": "obb", "classify": "classify"}


def head_of(model: Model) -> str:
    """The head that the metadata name; "" without such metadata."""
    return _HEADS.get(model.metadata.get("task", ""), "") if "names" in model.metadata else ""


def look(model: Model) -> Sequence[Line]:
    """Head, labels, size and values of the picture."""
    said, task = model.metadata, head_of(model)
    if not task:
        return []
    lines = [Line("heads.0.kind", task, Sure.certain, f"metadata: task = {said['task']}")]
    names = _literal(said["names"])
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    if isinstance(names, dict) and names:
        labels = [str(names.get(number, names.get(str(number), number))) for number in range(len(names))]
        lines.append(Line("heads.0.labels", labels, Sure.certain, f"metadata: names has {len(labels)}"))
    points = _literal(said.get("kpt_shape", ""))
    if task == "keypoints" and _two_numbers(points):
        for name, value in zip(("points", "dimensions"), points, strict=True):
            lines.append(Line(f"heads.0.{name}", value, Sure.certain, f"metadata: kpt_shape = {list(points)}"))
    if text := _description(said):
        lines.append(Line("description", text, Sure.certain, "metadata: description, license"))
    return [*lines, *_picture_lines(model, said, task)]


def _picture_lines(model: Model, said: Any, task: str) -> Sequence[Line]:
    if (picture := model.picture) is None:
        return []
    at = picture.path
    why = f"metadata: exported by Ultralytics, task = {said['task']}"
    lines = [
        Line(f"{at}.colours", "rgb", Sure.certain, why),
        Line(f"{at}.scale", 1 / 255, Sure.certain, why),
    ]
    size = _literal(said.get("imgsz", ""))
    if picture.height is None and _two_numbers(size):
        lines.append(Line(f"{at}.size", list(size), Sure.certain, f"metadata: imgsz = {list(size)}"))
    if task == "classify":
        return [
            *lines,
            Line(f"{at}.fit", "crop", Sure.certain, why),
            Line(f"{at}.resize", "bilinear", Sure.certain, why),
            Line(f"{at}.antialias", True, Sure.certain, why),
        ]
    return [
        *lines,
        Line(f"{at}.fit", "letterbox", Sure.certain, why),
        Line(f"{at}.pad_value", 114, Sure.certain, why),
        Line(f"{at}.resize", "bilinear", Sure.certain, why),
    ]


def _description(said: Any) -> str:
    """The description and the licence that the export names: AGPL-3.0 binds an operator who serves the model."""
    parts = [said.get("description", ""), f"licence {said['license']}" if said.get("license") else ""]
    return "; ".join(part for part in parts if part)[:500]


def _two_numbers(said: Any) -> bool:
    return isinstance(said, list | tuple) and len(said) == 2 and all(isinstance(each, int) for each in said)


def _literal(text: str) -> Any:
    """A Python or json literal, as releases have written either."""
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None
