"""Hugging Face's preprocessor_config.json (how a picture becomes the input) and config.json (labels)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from engines.models.companions.base import Line, Model, Sure, json_of
from engines.models.companions.labels import in_order
from schemas.errors import ModelError

# numbers of Pillow's filters, which `resample` has
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_RESCALE = 1 / 255  # of transformers, where `do_rescale` names no factor


def preprocessor(model: Model) -> Sequence[Line]:
    """Size, crop, filter, scale, mean and std."""
    path = next(model.beside("preprocessor_config.json"), None) or _above(model, "preprocessor_config.json")
    if path is None or (picture := model.picture) is None:
        return []
    said = json_of(path)
    at, file = picture.path, path.name
    try:
        found = [*_geometry(said, picture.height is None), *_arithmetic(said)]
        lines = [Line(f"{at}.{name}", value, Sure.certain, f"{file}: {why}") for name, value, why in found]
        return [_doubted(line, said) for line in lines]
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} has a value that no picture processor takes", "correct it, or move it away"
        ) from error


def config(model: Model) -> Sequence[Line]:
    """Labels, and what is made with them where the architecture's name says so."""
    path = next(model.beside("config.json"), None) or _above(model, "config.json")
    if path is None:
        return []
    said = json_of(path)
    lines = []
    names = said.get("id2label")
    if isinstance(names, dict) and all(key.isdecimal() for key in names):
        labels = in_order({int(key): str(name) for key, name in names.items()})
        if labels:
            lines.append(Line("heads.0.labels", labels, Sure.certain, f"{path.name}: id2label has {len(labels)}"))
    named = next((str(each) for each in said.get("architectures") or []), "")
    for ending, kind in _ARCHITECTURES.items():
        if ending in named:
            lines.append(Line("heads.0.kind", kind, Sure.certain, f"{path.name}: architectures = {named}"))
            break
    if said.get("problem_type") == "multi_label_classification":
        lines.append(Line("heads.0.activation", "sigmoid", Sure.certain, f"{path.name}: problem_type"))
    return lines


_ARCHITECTURES = {
    "ForImageClassification": "classify",
    "ForObjectDetection": "detect",
    "ForSemanticSegmentation": "segment",
    "ForDepthEstimation": "depth",
    "ForImageSuperResolution": "image",
    "VisionModelWithProjection": "embed",
}


def _above(model: Model, name: str) -> Any:
    """The file in the folder above, where the model lies in `onnx/` as those for transformers.js do."""
    path = model.folder.resolve().parent / name
    return path if model.folder.resolve().name == "onnx" and path.is_file() else None


def _geometry(said: dict[str, Any], free: bool) -> Iterator[tuple[str, Any, str]]:
    """`(field, value, why)`: the short side is scaled to `shortest_edge`, then `crop_size` cut from the middle."""
    size, crop = said.get("size"), said.get("crop_size")
    cuts = said.get("do_center_crop", crop is not None) and crop is not None
    sides = _sides(crop if cuts else size)
    if sides and free:
        yield "size", sides, f"{'crop_size' if cuts else 'size'} = {crop if cuts else size}"
    if said.get("do_pad") and isinstance(size, dict) and "longest_edge" in size:
        yield "fit", "letterbox", "do_pad"
    elif cuts or (isinstance(size, dict) and "shortest_edge" in size) or "crop_pct" in said:
        yield "fit", "crop", "do_center_crop" if cuts else f"size = {size}"
    elif size is not None:
        yield "fit", "stretch", f"size = {size}"
    if said.get("resample") in _FILTERS:
        yield "resize", _FILTERS[said["resample"]], f"resample = {said['resample']}"
        yield "antialias", True, "transformers resizes by Pillow"


def _doubted(line: Line, said: dict[str, Any]) -> Line:
    """Lowers how sure a crop is where the picture is scaled to more than is cut out: no card says that."""
    crop, size = _sides(said.get("crop_size")), _sides(said.get("size"))
    if line.value == "crop" and crop and size and min(size) > min(crop):
        why = f"{line.why}; the short side should be {min(size)} before, here all of it is kept"
        return replace(line, sure=Sure.guess, why=why)
    return line


def _arithmetic(said: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """`(field, value, why)` of `(x * scale - mean) / std`."""
    yield "colours", "bgr" if said.get("do_flip_channel_order") else "rgb", "do_flip_channel_order, false if absent"
    rescales = said.get("do_rescale", True)
    yield "scale", float(said.get("rescale_factor", _RESCALE)) if rescales else 1.0, "do_rescale, rescale_factor"
    if said.get("do_normalize", "image_mean" in said):
        for name, key in (("mean", "image_mean"), ("std", "image_std")):
            if isinstance(said.get(key), (list, tuple, int, float)):
                yield name, said[key], key


def _sides(said: Any) -> list[int] | None:
    """(height, width) of a size, which older files have as one number."""
    if isinstance(said, int):
        return [said, said]
    if isinstance(said, dict):
        if "height" in said and "width" in said:
            return [int(said["height"]), int(said["width"])]
        if "shortest_edge" in said:
            return [int(said["shortest_edge"])] * 2
    return None
