"""Recognises models that make pictures, by shape, name and a trial: super-resolution, depth, mattes, segments.

A network is tried with values of 0 ... 1, 0 ... 255 and -1 ... 1. Its output looks like its input if the values are
those that it was trained with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.models.companions.base import Line, Model, Picture, Sure
from engines.part import Array

_RANGES: dict[str, dict[str, Any]] = {
    "unit": {"scale": 1 / 255},
    "bytes": {"scale": 1.0},
    "signed": {"scale": 1 / 255, "mean": 0.5, "std": 0.5},
}
_SPANS = {"unit": [0.0, 1.0], "bytes": [0.0, 255.0], "signed": [-1.0, 1.0]}
_OVERLAP = 16  # source pixels
_SAME = 0.06  # of the range: the largest mean difference of an output that shows its input
_DEPTH = ("depth", "midas", "disp")
_MATTE = ("alpha", "matte", "mask", "matting", "modnet", "u2net", "isnet", "rmbg", "pha", "birefnet")
_IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def look(model: Model) -> Sequence[Line]:
    """Head and values of the picture, where an output is as large as the picture or an integer multiple."""
    picture = model.picture
    if picture is None or model.picture_values is None:
        return []
    height, width = model.picture_values.shape[:2]
    for name, shape in model.shapes.items():
        found = _layout(shape)
        if found is None:
            continue
        channels, rows, columns = found
        if rows % height == 0 and rows // height == columns / width and channels in (3, picture.channels):
            return _image(model, picture, name, channels, rows // height)
    if sum(_layout(shape) is not None for shape in model.shapes.values()) > 1 and "seg" not in model.path.stem:
        return []  # several maps are those of a detector, unless each is a stage of one segmentation
    for name, shape in model.shapes.items():
        found = _layout(shape)
        if found is not None and found[1] * 8 >= height and found[2] * 8 >= width:
            return _map(model, picture, name, found[0], shape)
    return []


def _layout(shape: tuple[int | str, ...]) -> tuple[int, int, int] | None:
    """(channels, height, width) of an output that is a picture."""
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != len(shape) or len(sizes) not in (3, 4) or min(sizes[-2:]) < 1:
        return None
    if len(sizes) == 3:
        return (1, sizes[1], sizes[2]) if min(sizes[1:]) >= 16 else None
    if sizes[1] <= min(sizes[2:]) and min(sizes[2:]) >= 8:
        return sizes[1], sizes[2], sizes[3]
    return (sizes[3], sizes[1], sizes[2]) if sizes[3] <= 4 else None


def _image(model: Model, picture: Picture, name: str, channels: int, factor: int) -> list[Line]:
    size = f"{factor} times as high and wide" if factor > 1 else "as large"
    why = f"output `{name}` is {size} as the input picture"
    lines = [Line("heads.0.kind", "image", Sure.likely, why)]
    errors = {values: _error(model, name, values, factor) for values in _RANGES}
    best = min(errors, key=lambda values: errors[values])
    if errors[best] < _SAME:
        sure = Sure.likely
        low, high = _SPANS[best]
        why = f"tried: with {low:g} ... {high:g} the output shows the input, error {errors[best]:.1%}"
        lines[0] = Line("heads.0.kind", "image", Sure.certain, f"{lines[0].why}, and shows it in a trial")
    else:
        best, sure, why = "unit", Sure.guess, "0 ... 1 is usual; no trial showed the input in the output"
    lines += [Line(f"{picture.path}.{field}", value, sure, why) for field, value in _RANGES[best].items()]
    lines.append(Line("heads.0.range", _SPANS[best], sure, why))
    if channels == 1:
        lines.append(Line("heads.0.colours", "gray", Sure.certain, f"output `{name}` has one channel"))
    if picture.channels == 3:
        lines.append(Line(f"{picture.path}.colours", "rgb", Sure.guess, "usual; nothing in the graph says so"))
    if factor > 1 and picture.height and picture.width and min(picture.height, picture.width) > 2 * _OVERLAP:
        tile = [picture.height, picture.width]
        lines.append(Line(f"{picture.path}.tile", tile, Sure.likely, "the graph takes one size: frames are cut to it"))
        lines.append(Line(f"{picture.path}.overlap", _OVERLAP, Sure.guess, "usual; seams differ from the whole frame"))
    return lines


def _error(model: Model, name: str, values: str, factor: int) -> float:
    """Mean difference of output and input, as a part of the range; infinite where it was not tried."""
    answer = model.answers.get(values, {}).get(name)
    given = model.picture_values
    if answer is None or given is None:
        return float("inf")
    out = _as_rows(answer[0] if answer.ndim == 4 else answer)
    low, high = _SPANS[values]
    rows, columns = given.shape[:2]
    small = out.reshape(rows, factor, columns, factor, -1).mean((1, 3))
    wanted = given if small.shape[2] == 3 else given.mean(2, keepdims=True)
    return float(np.abs((small - low) / (high - low) - wanted).mean())


def _as_rows(picture: Array) -> Array:
    """`[C, H, W]` or `[H, W, C]` as the latter, float64."""
    return np.asarray(picture.transpose(1, 2, 0) if picture.shape[0] <= 4 else picture, np.float64)


def _map(model: Model, picture: Picture, name: str, channels: int, shape: tuple[int | str, ...]) -> list[Line]:
    """Lines for an output of one value a pixel: depth, an alpha, or scores of classes."""
    called = f"{model.path.stem} {name}".lower()
    at = f"output {name} {list(shape)}"
    if channels > 3 or (channels == 2 and "seg" in called):
        kind, sure, why = "segment", Sure.likely, f"{at}: scores of {channels} classes for each pixel"
    elif any(word in called for word in _DEPTH):
        kind, sure, why = "depth", Sure.likely, f"{at}, and its name"
    elif any(word in called for word in _MATTE):
        kind, sure, why = "matte", Sure.likely, f"{at}, and its name"
    elif channels == 1:
        kind, sure, why = "matte", Sure.guess, f"{at}: one value a pixel"
    else:
        return []
    usual = "usual for such networks"
    values = {**_IMAGENET, "colours": "rgb", "fit": "stretch", "resize": "bilinear", "antialias": True}
    return [
        Line("heads.0.kind", kind, sure, why),
        *(Line(f"{picture.path}.{field}", value, Sure.guess, usual) for field, value in values.items()),
    ]
