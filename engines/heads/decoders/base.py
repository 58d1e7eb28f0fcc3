"""The protocol of decoders, which make candidates for boxes of the outputs of a detector, and what they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import ClassVar, Protocol

import numpy as np

from engines.heads.base import Count, HeadOptions, Labels, Share, dense
from engines.heads.reductions import Selected
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError


class BoxOptions(HeadOptions):
    """Options of every detector.

    A candidate needs a score above `threshold`. `nms`: of boxes whose intersection over union is larger, only the one
    with the highest score is kept; with `class_aware`, boxes are compared within their class; 1 keeps all. A picture
    has at most `max` boxes. `multi_label`: a candidate may have several classes; otherwise the one with the highest
    score.
    """

    threshold: Share = 0.25
    nms: Share = 0.45
    max: Count = 300
    class_aware: bool = True
    multi_label: bool = False
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Detections before suppression: C candidates of all rows of a batch, in any order.

    `rows [C]` int: the row of the batch; `boxes [C, 4]` float32: x1, y1, x2, y2 in pixels of the model's picture;
    `scores [C]` float32; `classes [C]` int32; `extra [C, E]` float32: the values that the head needs beside boxes.
    """

    rows: Array
    boxes: Array
    scores: Array
    classes: Array
    extra: Array

    @classmethod
    def of(cls, rows: Array, boxes: Array, scores: Array, classes: Array, extra: Array | None = None) -> "Candidates":
        """Make candidates, with arrays converted to their dtypes."""
        more = np.zeros((len(rows), 0), np.float32) if extra is None else extra.astype(np.float32, copy=False)
        return cls(
            rows,
            boxes.astype(np.float32, copy=False),
            scores.astype(np.float32, copy=False),
            classes.astype(np.int32, copy=False),
            more,
        )

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Join candidates; there is at least one `part`."""
        fields = ("rows", "boxes", "scores", "classes", "extra")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


class Decoder(Protocol):
    """Reads the outputs of a family of detectors. One for each session; it has no state."""

    Options: ClassVar[type[BoxOptions]]
    """The options of every detector, with defaults of this family, and options of this family."""

    reads: tuple[str, ...]
    """Names of the outputs that it reads."""

    classes: int | None
    """The number of classes; None if the shapes of outputs do not fix it."""

    def __init__(self, options: BoxOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        """`extra`: the number of values beside a box that the head needs; a point has three: x, y and score.

        Raises ModelError if outputs do not fit, or have no such values.
        """
        ...

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """Return all candidates above the threshold, in pixels of the `picture` (height, width)."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """Outputs that hold the same candidates: all candidates of a batch, or those that a GPU selected.

    `arrays`: of each output `[N, A, columns]`, or `[1, K, columns]` of K selected candidates. `grid`: the shape of the
    A places of a row, `[A]` or `[h, w]`.
    """

    arrays: tuple[Array, ...]
    grid: tuple[int, ...]
    selected: Selected | None = None

    @property
    def count(self) -> int:
        """The number of places of a row."""
        return prod(self.grid)

    def found(self, rows: Array, places: Array) -> tuple[Array, Array]:
        """Return row of the batch and place in it, `[C]` each, of the entries `rows [C], places [C]` of `arrays`."""
        if self.selected is None:
            return rows, places
        return row_numbers(self.selected)[places], self.selected.places[places]


def level_of(outputs: Mapping[str, Value], names: Sequence[str], columns_first: bool = False) -> Level:
    """Return outputs `[N, ..., columns]`, or `[N, columns, A]`, as one level. Raises ModelError."""
    values = [outputs[name] for name in names]
    first = values[0]
    if isinstance(first, Selected):
        return Level(tuple(each.values[None] for each in values if isinstance(each, Selected)), first.grid, first)
    arrays = [dense(value, name) for value, name in zip(values, names, strict=True)]
    if columns_first:
        arrays = [array.swapaxes(1, 2) for array in arrays]
    grid = arrays[0].shape[1:-1]
    return Level(tuple(array.reshape(len(array), prod(grid), array.shape[-1]) for array in arrays), grid)


def row_numbers(ragged: Ragged) -> Array:
    """Return the number of the row of each value, `[M]`."""
    return np.repeat(np.arange(len(ragged)), np.diff(ragged.offsets))


@dataclass(frozen=True, slots=True)
class Best:
    """Scores above a threshold: `rows [C]` and `places [C]` of the candidates, their `scores [C]` and `classes [C]`."""

    rows: Array
    places: Array
    scores: Array
    classes: Array


def best_classes(scores: Array, threshold: float, multi_label: bool) -> Best:
    """Return which `scores [N, A, classes]` exceed `threshold`: all, or the highest of each candidate."""
    if multi_label:
        rows, places, classes = np.nonzero(scores > threshold)
        return Best(rows, places, scores[rows, places, classes], classes)
    if scores.strides[-1] == scores.itemsize:  # argmax takes half the time of max here, else seven times as long
        best = scores.argmax(axis=-1)
        highest = scores[np.arange(len(scores))[:, None], np.arange(scores.shape[1]), best]
        rows, places = np.divmod(np.flatnonzero(highest > threshold), max(1, scores.shape[1]))
        return Best(rows, places, at(highest, rows, places), at(best, rows, places))
    highest = scores.max(axis=-1)
    rows, places = np.nonzero(highest > threshold)
    return Best(rows, places, highest[rows, places], scores[rows, places].argmax(axis=-1))


def at(values: Array, rows: Array, places: Array) -> Array:
    """Return `values[rows, places]`; NumPy takes a third of the time for one index, where there is only one row."""
    return values[0][places] if len(values) == 1 else values[rows, places]


def corners(centers: Array, sizes: Array) -> Array:
    """Return boxes `[C, 4]` of x1, y1, x2, y2 from `centers [C, 2]` and `sizes [C, 2]`, each x before y."""
    made = np.empty((len(centers), 4), np.result_type(centers, sizes))
    for axis in (0, 1):  # NumPy takes a third of the time for one axis after the other
        half = sizes[:, axis] / 2
        np.subtract(centers[:, axis], half, out=made[:, axis])
        np.add(centers[:, axis], half, out=made[:, axis + 2])
    return made


@lru_cache(maxsize=64)
def grid_cells(picture: Size, stride: int) -> Array:
    """Return column and row `[A, 2]` float32 of each cell of a grid over a picture, row by row. Read-only."""
    height, width = (-(-side // stride) for side in picture)
    rows, columns = np.divmod(np.arange(height * width), max(width, 1))
    cells = np.stack([columns, rows], axis=-1).astype(np.float32)
    cells.flags.writeable = False
    return cells


def around(centers: Array, sides: Array) -> Array:
    """Return boxes `[C, 4]` from inner points `[C, 2]` and their distances `[C, 4]` to left, top, right and bottom."""
    return np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=-1)


def scored_points(points: Array) -> Array:
    """Return points `[C, K, 2]` as a head reads them, `[C, 3 K]`: x, y and 1, because the model gives no score."""
    ones = np.ones((*points.shape[:2], 1), points.dtype)
    return np.concatenate([points, ones], axis=-1).reshape(len(points), 3 * points.shape[1])


def check_anchors(found: int, expected: int, picture: Size, decoder: str) -> None:
    """Raise ModelError unless an output has as many candidates as the grid over the picture has cells."""
    if found != expected:
        what = f"decoder {decoder}: {found} candidates, and a picture of {picture[0]}x{picture[1]} has {expected}"
        raise ModelError(what, "correct strides, or choose another decoder")


def check_points(extra: int, points: int, decoder: str) -> None:
    """Raise ModelError unless a head needs no points, or the number of points that the decoder gives."""
    if extra not in (0, 3 * points):
        raise ModelError(f"decoder {decoder} gives boxes and {points} points each", f"say points = {points}")


def levels_of(
    outputs: Mapping[str, Tensor], names: tuple[str, ...], columns: int, levels: int, option: str
) -> tuple[str, ...]:
    """Return the outputs of a detector's levels, the finest grid first: `names`, or outputs with `columns` columns.

    Raises ModelError if their number is not `levels`; `option` is the option that names them.
    """
    found = names or tuple(name for name, tensor in outputs.items() if tensor.shape[2:] == (columns,))
    sizes = [outputs[name].shape[1] if name in outputs else "" for name in found]
    if not names and all(isinstance(size, int) for size in sizes):
        found = tuple(sorted(found, key=lambda name: -int(outputs[name].shape[1])))
    if len(found) != levels or not set(found) <= outputs.keys():
        what = f"{option}: {levels} outputs are needed, one for each stride, and there are {', '.join(found) or 'none'}"
        raise ModelError(what, f"name them in the order of strides, of: {', '.join(outputs)}")
    return found


def refuse_extra(extra: int, decoder: str) -> None:
    """Raise ModelError if a head needs more than the boxes that the decoder gives."""
    if extra:
        raise ModelError(f"decoder {decoder} gives boxes only", "choose another decoder, or the head detect")


def columns_of(tensor: Tensor, axis: int, least: int, decoder: str) -> int | None:
    """Return the number of columns along `axis`, None if it is free. Raises ModelError if it is below `least`."""
    shape = tensor.shape
    if len(shape) != 3:
        raise ModelError(f"decoder {decoder}: the output has {len(shape)} dimensions, and it needs 3")
    columns = shape[axis]
    if isinstance(columns, str):
        return None
    if columns < least:
        raise ModelError(f"decoder {decoder}: the output has {columns} columns, and it needs {least} or more")
    return columns
