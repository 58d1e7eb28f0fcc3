"""Reads config.json of timm's models on the Hugging Face hub: how the picture is made, and labels.

Source: huggingface/pytorch-image-models, timm/data/config.py and transforms_factory.py (evaluation).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from typing import Any

from engines.models.companions.base import Line, Model, Picture, Sure, json_of
from schemas.errors import ModelError

_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
_KEPT = 0.875  # of the short side, where the file does not name it
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def look(model: Model) -> Sequence[Line]:
    """Size, crop, filter, mean and std of a model that takes planes of colours, as exports of timm do; labels."""
    path, picture = model.configured("config.json"), model.picture
    if path is None or picture is None or picture.layout != "nchw":
        return []
    fields = json_of(path)
    made = fields.get("pretrained_cfg", fields)
    if not isinstance(made, dict) or "input_size" not in made:
        return []
    try:
        found = [*_geometry(made, picture), *((name, made.get(name, usual)) for name, usual in _IMAGENET.items())]
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{path} has a value that timm does not take", "correct it, or move it away") from error
    lines = [("colours", "rgb"), ("scale", 1 / 255), *found]
    why = f"{path.name}: timm's {fields.get('architecture') or 'pretrained_cfg'}"
    labels = fields.get("label_names", made.get("label_names"))
    made_of = [Line(f"{picture.path}.{name}", value, Sure.certain, why) for name, value in lines]
    if isinstance(labels, list) and labels:
        made_of.append(Line("heads.0.labels", [str(each) for each in labels], Sure.certain, why))
    return made_of


def _geometry(fields: Mapping[str, Any], picture: Picture) -> Iterator[tuple[str, Any]]:
    """Yield `(field, value)`: the short side is scaled to the size / crop_pct, then the middle is cut out."""
    declared = [int(side) for side in fields["input_size"]][-2:]
    size = [picture.height or declared[0], picture.width or declared[1]]  # a graph may be exported for another size
    if picture.height is None or picture.width is None:
        yield "size", size
    kept = float(fields.get("crop_pct") or _KEPT)
    mode = fields.get("crop_mode") or "center"
    if mode == "border":
        yield "fit", "letterbox"
    elif mode == "squash" and kept == 1:
        yield "fit", "stretch"
    else:
        yield "fit", "crop"
        if (short := floor(max(size) / kept)) > max(size):
            yield "short_side", short
    if fields.get("interpolation") in _FILTERS:
        yield "resize", fields["interpolation"]
        yield "antialias", True
