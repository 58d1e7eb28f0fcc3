"""The protocol of decoders, and what they share: from the outputs of a detector to candidates for boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Annotated, ClassVar, Protocol, TypeAlias

import numpy as np
from pydantic import Field

from engines.heads.base import HeadOptions, Labels, dense
from engines.heads.reductions import Selected
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError

Score: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
MostBoxes: TypeAlias = Annotated[int, Field(ge=1, le=10_000)]


class BoxOptions(HeadOptions):
    """Options of every detector.

    A candidate needs a score above `threshold`. `nms`: of boxes that overlap by more (intersection over union) only
    the best stays, among those of one class if `class_aware`; 1 keeps all. At most `max` boxes a picture.
    `multi_label`: a candidate may be of several classes; else it is of its best.
    """

    threshold: Score = 0.25
    nms: Share = 0.45
    max: MostBoxes = 300
    class_aware: bool = True
    multi_label: bool = False
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a detector found, before suppression. C candidates of all rows of a batch, in any order.

    `rows [C]` int: the row of the batch; `boxes [C, 4]` float32: x1, y1, x2, y2 in pixels of the model's picture;
    `scores [C]` float32; `classes [C]` int32; `extra [C, E]` float32: what a head asked for beside boxes.
    """

    rows: Array
    boxes: Array
    scores: Array
    classes: Array
    extra: Array

    @classmethod
    def of(cls, rows: Array, boxes: Array, scores: Array, classes: Array, extra: Array | None = None) -> "Candidates":
        """In the dtypes that they have."""
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
        """All of several, one after the other; there is one at least."""
        fields = ("rows", "boxes", "scores", "classes", "extra")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


class Decoder(Protocol):
    """How a family of detectors writes its boxes. Made once a session, has no state."""

    Options: ClassVar[type[BoxOptions]]
    """Those of every detector with the family's own defaults, and the family's own."""

    reads: tuple[str, ...]
    """Names of the outputs that it reads."""

    classes: int | None
    """How many classes the model tells apart; None where its outputs do not say."""

    def __init__(self, options: BoxOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        """`extra`: how many values beside its box the head wants of a candidate; points are x, y, score each.

        Raises ModelError where outputs do not fit, or there are no such values.
        """
        ...

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """All candidates above the threshold, points and boxes in pixels of the `picture` (height, width)."""
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
        """A."""
        return prod(self.grid)

    def found(self, rows: Array, places: Array) -> tuple[Array, Array]:
        """The row of the batch and the place in it `[C]` of what stands at `rows [C]` and `places [C]` of `arrays`."""
        if self.selected is None:
            return rows, places
        return row_numbers(self.selected)[places], self.selected.places[places]


def level_of(outputs: Mapping[str, Value], names: Sequence[str], columns_first: bool = False) -> Level:
    """The outputs `[N, ..., columns]` of these names, or `[N, columns, A]`, as one level. Raises ModelError."""
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
    """The row `[M]` of each value."""
    return np.repeat(np.arange(len(ragged)), np.diff(ragged.offsets))


@dataclass(frozen=True, slots=True)
class Best:
    """Scores above a threshold: `rows [C]` and `places [C]` (which candidate), `scores [C]`, `classes [C]`."""

    rows: Array
    places: Array
    scores: Array
    classes: Array


def best_classes(scores: Array, threshold: float, multi_label: bool) -> Best:
    """Of `scores [N, A, classes]` those above `threshold`: all, or the best of each of the A candidates."""
    if multi_label:
        rows, places, classes = np.nonzero(scores > threshold)
        return Best(rows, places, scores[rows, places, classes], classes)
    if scores.strides[-1] == scores.itemsize:  # argmax is twice as fast as max here, and seven times as slow elsewhere
        highest = np.take_along_axis(scores, scores.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    else:
        highest = scores.max(axis=-1)
    rows, places = np.nonzero(highest > threshold)
    return Best(rows, places, highest[rows, places], scores[rows, places].argmax(axis=-1))


def corners(centers: Array, sizes: Array) -> Array:
    """Boxes `[C, 4]` of x1, y1, x2, y2 from `centers [C, 2]` and `sizes [C, 2]`, each x before y."""
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=-1)


@lru_cache(maxsize=64)
def grid_cells(picture: Size, stride: int) -> Array:
    """Columns and rows `[A, 2]` float32 of the cells of a grid over a picture, x before y, row by row. Read-only."""
    height, width = (-(-side // stride) for side in picture)
    rows, columns = np.divmod(np.arange(height * width), max(width, 1))
    cells = np.stack([columns, rows], axis=-1).astype(np.float32)
    cells.flags.writeable = False
    return cells


def around(centers: Array, sides: Array) -> Array:
    """Boxes `[C, 4]` from points inside `[C, 2]` and their distances `[C, 4]` to the left, top, right and bottom."""
    return np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=-1)


def scored_points(points: Array) -> Array:
    """Points `[C, K, 2]` as a head reads them, `[C, 3 K]`: x, y and the score 1, for the model gives none."""
    ones = np.ones((*points.shape[:2], 1), points.dtype)
    return np.concatenate([points, ones], axis=-1).reshape(len(points), 3 * points.shape[1])


def check_anchors(found: int, expected: int, picture: Size, decoder: str) -> None:
    """Raise ModelError where an output has another number of candidates than the grid over the picture."""
    if found != expected:
        what = f"decoder {decoder}: {found} candidates, and a picture of {picture[0]}x{picture[1]} has {expected}"
        raise ModelError(what, "correct strides, or choose another decoder")


def check_points(extra: int, points: int, decoder: str) -> None:
    """Raise ModelError for a head that wants something else than no points or the `points` that a decoder gives."""
    if extra not in (0, 3 * points):
        raise ModelError(f"decoder {decoder} gives boxes and {points} points each", f"say points = {points}")


def levels_of(
    outputs: Mapping[str, Tensor], names: tuple[str, ...], columns: int, levels: int, option: str
) -> tuple[str, ...]:
    """The outputs of the levels of a detector, the finest grid first: `names`, or those of so many columns.

    Raises ModelError where there are not as many as `levels`; it asks for their names by `option`.
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
    """Raise ModelError for a head that wants more than boxes of a decoder that has boxes only."""
    if extra:
        raise ModelError(f"decoder {decoder} gives boxes only", "choose another decoder, or the head detect")


def columns_of(tensor: Tensor, axis: int, least: int, decoder: str) -> int | None:
    """How many columns an output has along `axis`; None where that is free. Raises ModelError: fewer than `least`."""
    shape = tensor.shape
    if len(shape) != 3:
        raise ModelError(f"decoder {decoder}: the output has {len(shape)} dimensions, and it needs 3")
    columns = shape[axis]
    if isinstance(columns, str):
        return None
    if columns < least:
        raise ModelError(f"decoder {decoder}: the output has {columns} columns, and it needs {least} or more")
    return columns
