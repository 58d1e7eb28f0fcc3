"""Reads the metadata that Ultralytics writes into the ONNX file: names, task, imgsz, stride, license."""

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
    fields, task = model.metadata, head_of(model)
    if not task:
        return []
    lines = [Line("heads.0.kind", task, Sure.certain, f"metadata: task = {fields['task']}")]
    names = _literal(fields["names"])
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    if isinstance(names, dict) and names:
        labels = [str(names.get(number, names.get(str(number), number))) for number in range(len(names))]
        lines.append(Line("heads.0.labels", labels, Sure.certain, f"metadata: names has {len(labels)}"))
    points = _literal(fields.get("kpt_shape", ""))
    if task == "keypoints" and _two_numbers(points):
        for name, value in zip(("points", "dimensions"), points, strict=True):
            lines.append(Line(f"heads.0.{name}", value, Sure.certain, f"metadata: kpt_shape = {list(points)}"))
    if text := _description(fields):
        lines.append(Line("description", text, Sure.certain, "metadata: description, license"))
    return [*lines, *_picture_lines(model, fields, task)]


def _picture_lines(model: Model, fields: Any, task: str) -> Sequence[Line]:
    if (picture := model.picture) is None:
        return []
    at = picture.path
    why = f"metadata: exported by Ultralytics, task = {fields['task']}"
    lines = [
        Line(f"{at}.colours", "rgb", Sure.certain, why),
        Line(f"{at}.scale", 1 / 255, Sure.certain, why),
    ]
    size = _literal(fields.get("imgsz", ""))
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


def _description(fields: Any) -> str:
    """The description and the licence that the export names: AGPL-3.0 binds an operator who serves the model."""
    parts = [fields.get("description", ""), f"licence {fields['license']}" if fields.get("license") else ""]
    return "; ".join(part for part in parts if part)[:500]


def _two_numbers(fields: Any) -> bool:
    return isinstance(fields, list | tuple) and len(fields) == 2 and all(isinstance(each, int) for each in fields)


def _literal(text: str) -> Any:
    """A Python or json literal, as releases have written either."""
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None
