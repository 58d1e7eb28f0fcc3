"""Hugging Face's preprocessor_config.json (how a picture becomes the input) and config.json (labels)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from engines.models.companions.base import Line, Model, Sure, json_of
from engines.models.companions.labels import in_order
from schemas.errors import ModelError

# numbers of Pillow's filters, which `resample` has
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_WHOLE = 384  # of ConvNeXT: from this size on pictures are not cropped
_RESCALE = 1 / 255  # of transformers, where `do_rescale` names no factor


def preprocessor(model: Model) -> Sequence[Line]:
    """Size, crop, filter, scale, mean and std."""
    path = model.configured("preprocessor_config.json")
    if path is None or (picture := model.picture) is None:
        return []
    said = json_of(path)
    at, file = picture.path, path.name
    try:
        most = max(picture.height or 0, picture.width or 0)  # a graph may be exported for another size
        found = [*_geometry(said, picture.height is None), *_arithmetic(said)]
        lines = [Line(f"{at}.{name}", value, Sure.certain, f"{file}: {why}") for name, value, why in found]
        return [_doubted(line, said) for line in lines if line.field != f"{at}.short_side" or line.value >= most]
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} has a value that no picture processor takes", "correct it, or move it away"
        ) from error


def config(model: Model) -> Sequence[Line]:
    """Labels, and what is made with them where the architecture's name says so."""
    path = model.configured("config.json")
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


def _geometry(said: dict[str, Any], free: bool) -> Iterator[tuple[str, Any, str]]:
    """`(field, value, why)`: the short side is scaled to `shortest_edge`, then `crop_size` cut from the middle."""
    size, crop = said.get("size"), said.get("crop_size")
    cuts = said.get("do_center_crop", crop is not None) and crop is not None
    cut, before = _sides(crop if cuts else size), _sides(size)
    if "crop_pct" in said and not cuts and before:  # as ConvNeXT's processor takes it
        cuts = min(before) < _WHOLE
        before = [int(side / float(said["crop_pct"])) for side in before] if cuts else before
        why = f"size = {size}, crop_pct = {said['crop_pct']}"
    else:
        why = f"size = {size}, crop_size = {crop}" if cuts else f"size = {size}"
    if cut and free:
        yield "size", cut, why
    if said.get("do_pad") and isinstance(size, dict) and "longest_edge" in size:
        yield "fit", "letterbox", "do_pad"
    elif cuts or (isinstance(size, dict) and "shortest_edge" in size and "crop_pct" not in said):
        yield "fit", "crop", why
        if cut and before and min(before) > max(cut):
            yield "short_side", min(before), why
    elif size is not None:
        yield "fit", "stretch", why
    if said.get("resample") in _FILTERS:
        yield "resize", _FILTERS[said["resample"]], f"resample = {said['resample']}"
        yield "antialias", True, "transformers resizes by Pillow"


def _doubted(line: Line, said: dict[str, Any]) -> Line:
    """Lowers how sure a crop is where the picture is stretched to a size before: a card has its short side only."""
    size = said.get("size")
    if line.field.endswith(".short_side") and isinstance(size, dict) and "height" in size:
        why = f"{line.why}: stretched before it is cropped; here it keeps its shape"
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
