"""yolov8: Ultralytics YOLOv8, v9, v11 and v12, without end-to-end export.

Output `[N, 4 + classes + E, A]`: center x, center y, width, height in pixels of the picture, a score for each class,
then what a task adds: keypoints, an angle, coefficients of masks. Source: ultralytics, utils/nms.py.
"""

from collections.abc import Mapping

from engines.heads.base import Share, chosen_output
from engines.heads.decoders.base import BoxOptions, Candidates, at, best_classes, columns_of, corners, level_of
from engines.heads.reductions import Selection, least_value
from engines.heads.view import Size
from engines.part import Value
from engines.planned import Tensor


class YoloV8Options(BoxOptions):
    """`transposed`: the output is `[N, A, 4 + classes + E]`."""

    nms: Share = 0.7
    output: str = ""
    transposed: bool = False


class YoloV8:
    """See the module."""

    Options = YoloV8Options

    def __init__(self, options: YoloV8Options, outputs: Mapping[str, Tensor], extra: int) -> None:
        self._options, self._extra = options, extra
        self.reads = (chosen_output(outputs, options.output, "decoder yolov8"),)
        tensor = outputs[self.reads[0]]
        columns = columns_of(tensor, 2 if options.transposed else 1, 5 + extra, "yolov8")
        self.classes = None if columns is None else columns - 4 - extra
        scores, least = slice(4, -extra or None), least_value(options.threshold)
        self.reductions = (Selection(self.reads, *self.reads, scores, least, columns_first=not options.transposed),)

    def candidates(self, outputs: Mapping[str, Value], picture: Size) -> Candidates:
        """See `Decoder`."""
        level = level_of(outputs, self.reads, columns_first=not self._options.transposed)
        (values,) = level.arrays
        end = values.shape[2] - self._extra
        best = best_classes(values[:, :, 4:end], self._options.threshold, self._options.multi_label)
        found, extra = (at(values[:, :, each], best.rows, best.places) for each in (slice(4), slice(end, None)))
        rows, _ = level.found(best.rows, best.places)
        return Candidates.of(rows, corners(found[:, :2], found[:, 2:]), best.scores, best.classes, extra)
