"""end2end: detectors that contain suppression and give one row for each box: YOLOv10, YOLO26, exports with nms=True,
YOLOv7 for TensorRT (`[M, 7]`), OpenVINO's DetectionOutput.

Output `[N, K, columns + E]`, ragged, or `[M, ...]` with the number of the picture in a column. `columns` names them:
x1, y1, x2, y2 (corners) or cx, cy, w, h; score; class; row (of the batch; below 0: no box); `-` for one that is not
used. Sources: docs.ultralytics.com/guides/end2end-detection; OpenVINO, DetectionOutput-1.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import model_validator

from engines.heads.base import Share, chosen_output
from engines.heads.decoders.base import BoxOptions, Candidates, corners, row_numbers
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError

_CORNERS, _CENTER = ("x1", "y1", "x2", "y2"), ("cx", "cy", "w", "h")


class End2EndOptions(BoxOptions):
    """`normalised`: coordinates are fractions of the picture's sides."""

    nms: Share = 1.0
    output: str = ""
    columns: tuple[str, ...] = (*_CORNERS, "score", "class")
    normalised: bool = False

    @model_validator(mode="after")
    def _columns_are_complete(self) -> Self:
        known = {*_CORNERS, *_CENTER, "score", "class", "row", "-"}
        unknown = [name for name in self.columns if name not in known]
        if unknown:
            raise ValueError(f"there is no column {unknown[0]}: there are {', '.join(sorted(known))}")
        if "score" not in self.columns or not any(set(box) <= set(self.columns) for box in (_CORNERS, _CENTER)):
            raise ValueError("columns need score, and x1, y1, x2, y2 or cx, cy, w, h")
        return self


class End2End:
    """See the module."""

    Options = End2EndOptions
    classes = None

    def __init__(self, options: End2EndOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        self._options, self._extra = options, extra
        self.reads = (chosen_output(outputs, options.output, "decoder end2end"),)
        columns, expected = outputs[self.reads[0]].shape[-1], len(options.columns) + extra
        if isinstance(columns, int) and columns != expected:
            what = f"decoder end2end: the output has {columns} columns, and columns and head expect {expected}"
            raise ModelError(what, "correct columns")
        self.reductions: tuple[Selection, ...] = ()
        if "row" not in options.columns:  # otherwise the rows of the output are not those of the batch
            score = options.columns.index("score")
            least = least_value(options.threshold)
            self.reductions = (Selection(self.reads, *self.reads, slice(score, score + 1), least),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        options, output = self._options, outputs[self.reads[0]]
        if "row" in options.columns:
            table = output.values if isinstance(output, Ragged) else output.reshape(-1, output.shape[-1])
            rows = np.nan_to_num(table[:, options.columns.index("row")], nan=-1).astype(np.int64)
        else:
            rows, table = rows_of(output, 1)
        used = (self._column(table, "score") > options.threshold) & (rows >= 0)
        rows, table = rows[used], table[used]
        boxes = self._boxes(table)
        if options.normalised:
            boxes = boxes * np.array(picture[::-1] * 2, np.float32)
        classes = self._column(table, "class") if "class" in options.columns else np.zeros(len(table))
        return Candidates.of(rows, boxes, self._column(table, "score"), classes, table[:, len(options.columns) :])

    def _boxes(self, table: Array) -> Array:
        if set(_CORNERS) <= set(self._options.columns):
            return np.stack([self._column(table, name) for name in _CORNERS], axis=-1)
        center_x, center_y, width, height = (self._column(table, name) for name in _CENTER)
        return corners(np.stack([center_x, center_y], axis=-1), np.stack([width, height], axis=-1))

    def _column(self, table: Array, name: str) -> Array:
        return np.asarray(table[:, self._options.columns.index(name)])


def rows_of(output: Value, inner: int) -> tuple[Array, Array]:
    """Return the row `[C]` of each value of an output, and the values `[C, ...]`, which have `inner` dimensions."""
    if isinstance(output, Ragged):
        return row_numbers(output), output.values
    shape = output.shape[output.ndim - inner :]
    values = output.reshape(-1, *shape)
    return np.repeat(np.arange(len(output)), len(values) // max(len(output), 1)), values
