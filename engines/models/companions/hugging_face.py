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
    fields = json_of(path)
    at, file = picture.path, path.name
    try:
        most = max(picture.height or 0, picture.width or 0)  # a graph may be exported for another size
        found = [*_geometry(fields, picture.height is None), *_arithmetic(fields)]
        lines = [Line(f"{at}.{name}", value, Sure.certain, f"{file}: {why}") for name, value, why in found]
        return [_doubted(line, fields) for line in lines if line.field != f"{at}.short_side" or line.value >= most]
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} has a value that no picture processor takes", "correct it, or move it away"
        ) from error


def config(model: Model) -> Sequence[Line]:
    """Labels, and the head if the architecture's name states it."""
    path = model.configured("config.json")
    if path is None:
        return []
    fields = json_of(path)
    lines = []
    names = fields.get("id2label")
    if isinstance(names, dict) and all(key.isdecimal() for key in names):
        labels = in_order({int(key): str(name) for key, name in names.items()})
        if labels:
            lines.append(Line("heads.0.labels", labels, Sure.certain, f"{path.name}: id2label has {len(labels)}"))
    named = next((str(each) for each in fields.get("architectures") or []), "")
    for ending, kind in _ARCHITECTURES.items():
        if ending in named:
            lines.append(Line("heads.0.kind", kind, Sure.certain, f"{path.name}: architectures = {named}"))
            break
    if fields.get("problem_type") == "multi_label_classification":
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


def _geometry(fields: dict[str, Any], free: bool) -> Iterator[tuple[str, Any, str]]:
    """`(field, value, why)`: the short side is scaled to `shortest_edge`, then `crop_size` cut from the middle."""
    size, crop = fields.get("size"), fields.get("crop_size")
    cuts = fields.get("do_center_crop", crop is not None) and crop is not None
    cut, before = _sides(crop if cuts else size), _sides(size)
    if "crop_pct" in fields and not cuts and before:  # as ConvNeXT's processor takes it
        cuts = min(before) < _WHOLE
        before = [int(side / float(fields["crop_pct"])) for side in before] if cuts else before
        why = f"size = {size}, crop_pct = {fields['crop_pct']}"
    else:
        why = f"size = {size}, crop_size = {crop}" if cuts else f"size = {size}"
    if cut and free:
        yield "size", cut, why
    if fields.get("do_pad") and isinstance(size, dict) and "longest_edge" in size:
        yield "fit", "letterbox", "do_pad"
    elif cuts or (isinstance(size, dict) and "shortest_edge" in size and "crop_pct" not in fields):
        yield "fit", "crop", why
        if cut and before and min(before) > max(cut):
            yield "short_side", min(before), why
    elif size is not None:
        yield "fit", "stretch", why
    if fields.get("resample") in _FILTERS:
        yield "resize", _FILTERS[fields["resample"]], f"resample = {fields['resample']}"
        yield "antialias", True, "transformers resizes by Pillow"


def _doubted(line: Line, fields: dict[str, Any]) -> Line:
    """Lower the certainty of a crop if the picture is stretched to a size before: a card has only the short side."""
    size = fields.get("size")
    if line.field.endswith(".short_side") and isinstance(size, dict) and "height" in size:
        why = f"{line.why}: stretched before it is cropped; here it keeps its shape"
        return replace(line, sure=Sure.guess, why=why)
    return line


def _arithmetic(fields: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """`(field, value, why)` of `(x * scale - mean) / std`."""
    yield "colours", "bgr" if fields.get("do_flip_channel_order") else "rgb", "do_flip_channel_order, false if absent"
    rescales = fields.get("do_rescale", True)
    yield "scale", float(fields.get("rescale_factor", _RESCALE)) if rescales else 1.0, "do_rescale, rescale_factor"
    if fields.get("do_normalize", "image_mean" in fields):
        for name, key in (("mean", "image_mean"), ("std", "image_std")):
            if isinstance(fields.get(key), (list, tuple, int, float)):
                yield name, fields[key], key


def _sides(fields: Any) -> list[int] | None:
    """(height, width) of a size, which older files have as one number."""
    if isinstance(fields, int):
        return [fields, fields]
    if isinstance(fields, dict):
        if "height" in fields and "width" in fields:
            return [int(fields["height"]), int(fields["width"])]
        if "shortest_edge" in fields:
            return [int(fields["shortest_edge"])] * 2
    return None
