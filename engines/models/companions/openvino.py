"""Reads `model_info` of OpenVINO's Model API from the rt_info of an xml file, or the ONNX file's metadata."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

from engines.models.companions.base import Line, Model, Sure, text_of
from schemas.errors import ModelError

_PREFIX = "model_info "  # of its keys in the metadata of an ONNX file
_ENTITY = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)  # a few lines of these expand to gigabytes
_HEADS: dict[str, tuple[str, str]] = {
    "classification": ("classify", ""),
    "segmentation": ("segment", ""),
    "ssd": ("detect", "ssd"),
    "yolov5": ("detect", "yolov5"),
    "yolov8": ("detect", "yolov8"),
    "yolo11": ("detect", "yolov8"),
    "yolox": ("detect", "yolox"),
    "nanodet": ("detect", "nanodet"),
    "ultra_lightweight_face_detection": ("detect", "ultraface"),
}
_FITS = {
    "standard": ("stretch", ""),
    "crop": ("crop", ""),
    "fit_to_window": ("letterbox", "corner"),
    "fit_to_window_letterbox": ("letterbox", "center"),
}


def look(model: Model) -> Sequence[Line]:
    """Head, labels, thresholds, and how the picture is made."""
    fields, file = _read(model)
    if not fields:
        return []
    lines: list[Line] = []

    def add(field: str, key: str, read: Callable[[str], Any]) -> None:
        if key in fields:
            with suppress(ValueError, KeyError):
                lines.append(Line(field, read(fields[key]), Sure.certain, f"{file}: {key} = {fields[key][:60]}"))

    kind, decoder = _HEADS.get(fields.get("model_type", "").lower(), ("", ""))
    if kind:
        add("heads.0.kind", "model_type", lambda _: kind)
    if decoder:
        add("heads.0.decoder", "model_type", lambda _: decoder)
    add("heads.0.labels", "labels", lambda text: [each.replace("_", " ") for each in text.split()])
    add("heads.0.threshold", "confidence_threshold", float)
    add("heads.0.nms", "iou_threshold", float)
    if (picture := model.picture) is not None:
        at = picture.path
        add(f"{at}.colours", "reverse_input_channels", lambda text: "rgb" if _true(text) else "bgr")
        add(f"{at}.mean", "mean_values", _numbers)
        add(f"{at}.std", "scale_values", _numbers)
        add(f"{at}.fit", "resize_type", lambda text: _FITS[text.lower()][0])
        add(f"{at}.pad_place", "resize_type", lambda text: _FITS[text.lower()][1] or _skip())
        add(f"{at}.pad_value", "pad_value", int)
        if "mean_values" in fields or "scale_values" in fields:
            lines.append(Line(f"{at}.scale", 1.0, Sure.certain, f"{file}: means are of bytes"))
    return lines


def _read(model: Model) -> tuple[Mapping[str, str], str]:
    """The fields of the file, and its name."""
    inside = {key[len(_PREFIX) :]: value for key, value in model.metadata.items() if key.startswith(_PREFIX)}
    if inside:
        return inside, "metadata: model_info"
    for path in model.beside("xml", "openvino_model.xml", f"{model.path.stem}.xml"):
        text = text_of(path)
        if _ENTITY.search(text):
            raise ModelError(f"{path} declares entities, which no OpenVINO model does", "move it away from the model")
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise ModelError(f"{path} is not xml: {error}", "move it away from the model") from error
        found = root.find(".//rt_info/model_info")
        if found is not None:
            return {each.tag: each.get("value", each.text or "") for each in found}, path.name
    return {}, ""


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "yes", "1")


def _numbers(text: str) -> list[float]:
    found = [float(each) for each in re.split(r"[\s,]+", text.strip("[]() "))]
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise ValueError
    return found


def _skip() -> str:
    raise ValueError
