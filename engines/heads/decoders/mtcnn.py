"""mtcnn: the networks of MTCNN: P-Net over a picture, R-Net and O-Net over the crop of one candidate.

P-Net: scores `[N, h, w, 2]` and boxes `[N, h, w, 4]`, a square of `cell` pixels every `stride` pixels; `[N, w, h, ...]`
with `transposed`, for models that take columns before rows (layout = "nwhc"). R-Net and O-Net: scores `[N, 2]`, boxes
`[N, 4]` and, of O-Net, points `[N, 10]`; their square is the entire picture. The score is that of class 1, after
softmax. A corner of a box is the corner of its square plus box * side. Points are five x, then five y, as fractions of
the side. Source: Zhang et al. 2016, arXiv 1604.02878; timesler/facenet-pytorch, models/utils/detect_face.py, without
its shift by one pixel.
"""

from collections.abc import Mapping

import numpy as np

from engines.heads.base import Count, Share, chosen_output
from engines.heads.decoders.base import BoxOptions, Candidates, best_classes, check_points, level_of, scored_points
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError


class MtcnnOptions(BoxOptions):
    """`boxes`, `scores`, `points`: names of the outputs, if their last dimensions (4, 2, 10) are not distinct."""

    threshold: Share = 0.7
    nms: Share = 0.7
    boxes: str = ""
    scores: str = ""
    points: str = ""
    stride: Count = 2
    cell: Count = 12
    transposed: bool = False


class Mtcnn:
    """See the module."""

    Options = MtcnnOptions
    classes = 1

    def __init__(self, options: MtcnnOptions, outputs: Mapping[str, Tensor], extra: int) -> None:
        check_points(extra, 5, "mtcnn")
        self._options = options
        wanted = {"boxes": (options.boxes, 4), "scores": (options.scores, 2)}
        if extra:
            wanted["points"] = (options.points, 10)
        names = []
        for option, (name, columns) in wanted.items():
            fitting = {each: tensor for each, tensor in outputs.items() if tensor.shape[-1] == columns}
            names.append(chosen_output(outputs if name else fitting or outputs, name, "decoder mtcnn", option))
        self.reads = tuple(names)
        self.reductions = (Selection(self.reads, names[1], slice(1, None), least_value(options.threshold)),)
        self._is_grid = len(outputs[names[0]].shape) == 4
        if extra and self._is_grid:
            raise ModelError("decoder mtcnn: P-Net gives boxes only", "choose the head detect")

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        level = level_of(outputs, self.reads)
        boxes, scores, *points = level.arrays
        squares = self._squares(level.grid, picture)
        best = best_classes(scores[..., 1:], self._options.threshold, False)
        rows, places = level.found(best.rows, best.places)
        square = squares[places]
        sides = square[:, 2:] - square[:, :2]
        found = square + boxes[best.rows, best.places] * np.tile(sides, 2)
        extra = None
        if points:
            shares = points[0][best.rows, best.places].reshape(-1, 2, 5).swapaxes(1, 2)
            extra = scored_points(square[:, None, :2] + shares * sides[:, None])
        return Candidates.of(rows, found, best.scores, best.classes, extra)

    def _squares(self, grid: tuple[int, ...], picture: Size) -> Array:
        """Return the squares `[A, 4]` of x1, y1, x2, y2 that boxes are relative to."""
        if not self._is_grid:
            return np.array([[0, 0, picture[1], picture[0]]], np.float32)
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
        if self._options.transposed:
            rows, columns = columns, rows
        corner = np.stack([columns, rows], axis=-1) * self._options.stride
        return np.concatenate([corner, corner + self._options.cell], axis=-1).astype(np.float32)
