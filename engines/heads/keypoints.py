"""keypoints: boxes, each with a fixed number of points: poses, or the eyes, nose and mouth of faces."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from engines.heads.base import Count, own_and_other, parse_options
from engines.heads.boxes import Detector, DetectorOptions
from engines.heads.view import View
from engines.part import Value
from engines.planned import Tensor
from schemas.picture import PictureSpec


class KeypointsOptions(DetectorOptions):
    """`points`: their number or their names. `dimensions` of a point in the output: 3 with a score, 2 without."""

    points: Count | tuple[str, ...] = 17
    dimensions: Annotated[int, Field(ge=2, le=3)] = 3


class Keypoints(Detector):
    """Options: those of the head detect, and `KeypointsOptions`; decoders of faces need points = 5.

    Gives what detect gives, and `keypoints [M, K, 3]` float32: x and y in pixels of the source, clipped to it, and the
    point's score, 1 where the model has none. Source: ultralytics, models/yolo/pose/predict.py.
    """

    Options = KeypointsOptions

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        own, _ = own_and_other(KeypointsOptions, options)
        parsed = parse_options(KeypointsOptions, own, "head keypoints")
        self._dimensions = parsed.dimensions
        self._names = parsed.points if isinstance(parsed.points, tuple) else ()
        self._points = parsed.points if isinstance(parsed.points, int) else len(parsed.points)
        super().__init__(options, outputs, "keypoints", self._points * self._dimensions)

    def plan(self) -> dict[str, Tensor]:
        """`boxes`, `scores`, `classes` and `keypoints`, whose labels are the names of points."""
        points = Tensor("float32", ("N", "count", self._points, 3), ragged=True, labels=self._names)
        return {**super().plan(), "keypoints": points}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        found = self.find(outputs, views)
        kept = found.candidates
        points = np.ones((len(kept.rows), self._points, 3), np.float32)
        points[..., : self._dimensions] = kept.extra.reshape(-1, self._points, self._dimensions)
        points[..., :2] = found.way_back.points(points[..., :2], kept.rows)
        return {**found.arrays(), "keypoints": found.ragged(points)}
