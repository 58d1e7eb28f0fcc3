"""Recognises YOLO and similar detectors by the shape of their rows: v5, v7 to v12, end to end, YOLOX, NanoDet.

Strides and rows: https://docs.ultralytics.com (v5: three boxes a cell, xywh and objectness; v8: one, channels first),
https://github.com/Megvii-BaseDetection/YOLOX and https://github.com/RangiLyu/nanodet (one a cell, rows first).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engines.models.companions.base import Line, Model, Picture, Sure
from engines.models.companions.coco import COCO
from engines.models.companions.ultralytics import head_of
from engines.part import Array

_ULTRALYTICS = {
    "colours": "rgb",
    "scale": 1 / 255,
    "fit": "letterbox",
    "pad_value": 114,
    "pad_place": "center",
    "resize": "bilinear",
}
_YOLOX = {**_ULTRALYTICS, "colours": "bgr", "scale": 1.0, "pad_place": "corner"}
# of its configurations: https://github.com/RangiLyu/nanodet/blob/main/config/nanodet-g.yml
_NANODET = {
    "colours": "bgr",
    "scale": 1.0,
    "mean": [103.53, 116.28, 123.675],
    "std": [57.375, 57.12, 58.395],
    "fit": "letterbox",
    "pad_value": 0,
    "resize": "bilinear",
}
_PIXELS = 32  # the largest value of boxes in pixels is above this, that of boxes in strides or logarithms is below


def rows(model: Model) -> Sequence[Line]:
    """Families with one array of rows, `[N, rows, row]` or `[N, row, rows]`."""
    picture = model.picture
    large = [(name, shape) for name, shape in model.shapes.items() if len(shape) == 3]
    if picture is None or len(large) != 1:
        return []
    (name, (_, first, last)) = large[0]
    if not isinstance(first, int) or not isinstance(last, int):
        return []
    array = model.answer(name)
    cells = _cells(_size(model, picture))
    shape = f"output {name} [N, {first}, {last}]"
    extra = _extra(model)
    if first <= 1000 and (last == 6 + extra or (head_of(model) and last > 6 and first == 300)):
        return _lines(model, "end2end", 0, Sure.likely, f"{shape}: rows of box, score, class", _ULTRALYTICS)
    if first < last and (last in cells or (not cells and last > 10 * first)) and first > 4:
        why = f"{shape}: rows last, one a cell" + (f", {extra} of them mask coefficients" if extra else "")
        sure = Sure.certain if last in cells else Sure.likely
        return _lines(model, "yolov8", first - 4 - extra, sure, why, _ULTRALYTICS)
    if first in {3 * count for count in cells} and last > 5 + extra:
        why = f"{shape}: three boxes a cell of strides 8, 16, 32"
        return _lines(model, "yolov5", last - 5 - extra, Sure.certain, why, _ULTRALYTICS)
    if first in cells and last > 5 and array is not None:
        return _one_a_cell(model, array[0], shape)
    if first in (100, 300) and last > 6 and array is not None and np.all((array >= 0) & (array <= 1)):
        values = {**_ULTRALYTICS, "fit": "stretch"}
        why = f"{shape}: a box and scores of classes for each of {first} queries, all in 0 ... 1"
        lines = _lines(model, "detr", last - 4, Sure.likely, why, values)
        options = {"activation": "none", "multi_label": False}
        return [*lines, *(Line(f"heads.0.{name}", value, Sure.likely, why) for name, value in options.items())]
    return []


def _extra(model: Model) -> int:
    """Coefficients of masks behind each row, where there is an output of as many prototypes."""
    return next((int(each[1]) for each in model.shapes.values() if len(each) == 4 and isinstance(each[1], int)), 0)


def _one_a_cell(model: Model, row: Array, shape: str) -> Sequence[Line]:
    """YOLOX, or NanoDet with its bins of distances behind the classes."""
    probable = np.all((row >= 0) & (row <= 1), axis=0)
    classes = int(np.argmin(probable)) if not probable.all() else len(probable)
    bins = len(probable) - classes
    if classes >= 1 and bins % 4 == 0 and 8 <= bins // 4 <= 33:
        why = f"{shape}: {classes} scores in 0 ... 1, then 4 x {bins // 4} bins"
        return [*_lines(model, "nanodet", classes, Sure.certain, why, _NANODET), *_bins(bins, len(row), model)]
    if not probable[4:].all():
        return []
    if np.abs(row[:, :4]).max() < _PIXELS:
        why = f"{shape}: one row a cell, boxes in strides"
        return _lines(model, "yolox", row.shape[1] - 5, Sure.certain, why, _YOLOX)
    why = f"{shape}: one row a cell, boxes in pixels"
    if row.shape[1] == 4 + len(COCO):
        lines = _lines(model, "yolov8", len(COCO), Sure.likely, why, _ULTRALYTICS)
        return [*lines, Line("heads.0.transposed", True, Sure.likely, why)]
    return _lines(model, "yolov5", row.shape[1] - 5, Sure.likely, why, _YOLOX)


def strides(model: Model) -> Sequence[Line]:
    """NanoDet with an array of scores and one of bins for each stride."""
    picture = model.picture
    shapes = {name: shape for name, shape in model.shapes.items() if len(shape) == 3}
    if picture is None or len(shapes) != len(model.shapes) or len(shapes) not in (6, 8):
        return []
    by_rows: dict[Any, list[int]] = {}
    for _, count, last in shapes.values():
        if not isinstance(last, int):
            return []
        by_rows.setdefault(count, []).append(last)
    height, width = _size(model, picture)
    cells = {math.ceil(height / stride) * math.ceil(width / stride) for stride in (8, 16, 32, 64)}
    pairs = {tuple(sorted(each, reverse=True)) for each in by_rows.values()}
    if len(pairs) != 1 or not set(by_rows) <= cells or len(next(iter(pairs))) != 2:
        return []
    lasts = set(next(iter(pairs)))
    bins = next((last for last in sorted(lasts) if last in (32, 44, 68)), None)
    if bins is None:
        return []
    classes = next(iter(lasts - {bins}), bins)
    why = f"for each stride scores [n, {classes}] and 4 x {bins // 4} bins"
    rows = sum(count for count in by_rows if isinstance(count, int))
    return [*_lines(model, "nanodet", classes, Sure.certain, why, _NANODET), *_bins(bins, rows, model)]


def _bins(bins: int, rows: int, model: Model) -> list[Line]:
    """How many bins a side has; NanoDet-Plus has a stride of 64 too, and its points at the corners of cells."""
    lines = [Line("heads.0.reg_max", bins // 4 - 1, Sure.certain, f"4 x {bins // 4} bins of distances")]
    picture = model.picture
    if picture is not None and rows == sum(_counts(_size(model, picture))):
        why = f"{rows} rows: strides 8 to 64, as NanoDet-Plus has"
        lines.append(Line("heads.0.strides", [8, 16, 32, 64], Sure.certain, why))
        lines.append(Line("heads.0.offset", 0.0, Sure.likely, why))
    return lines


def _lines(model: Model, decoder: str, classes: int, sure: Sure, why: str, values: dict[str, Any]) -> list[Line]:
    picture = model.picture
    assert picture is not None
    usual = f"what {decoder} takes"
    kind = head_of(model) or ("instances" if _extra(model) else "detect")
    lines = [Line("heads.0.kind", kind, sure, why), Line("heads.0.decoder", decoder, sure, why)]
    lines += [Line(f"{picture.path}.{name}", value, Sure.likely, usual) for name, value in values.items()]
    if picture.height is None:
        lines.append(Line(f"{picture.path}.size", [640, 640], Sure.guess, "the graph leaves it free; 640 is usual"))
    if classes == len(COCO):
        lines.append(Line("heads.0.labels", list(COCO), Sure.guess, "80 classes: those of COCO"))
    return lines


def _size(model: Model, picture: Picture) -> tuple[int, int]:
    """Height and width that the answers are of, or that the graph has; zeros where neither is known."""
    if model.picture_values is not None and model.answers:
        height, width = model.picture_values.shape[:2]
        return height, width
    return picture.height or 0, picture.width or 0


def _cells(size: tuple[int, int]) -> set[int]:
    """Cells of strides 8 to 32, and 8 to 64, in a picture of this size."""
    counts = list(_counts(size))
    return {sum(counts[:3]), sum(counts)} if all(size) else set()


def _counts(size: tuple[int, int]) -> Iterator[int]:
    for stride in (8, 16, 32, 64):
        yield math.ceil(size[0] / stride) * math.ceil(size[1] / stride)
