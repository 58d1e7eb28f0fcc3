"""obb: boxes that are rotated by an angle."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.boxes import Detector
from engines.heads.decoders.base import Candidates
from engines.heads.suppression import Overlap
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.picture import PictureSpec

_TINY = 1e-7


class OrientedBoxes(Detector):
    """Options: those of the head detect. An angle in radians follows each box of the decoder, which is not rotated.

    Gives `corners [M, 4, 2]` float32, x and y in pixels of the source, not clipped, because that would deform a box;
    and what detect gives, where `boxes` enclose the corners and are clipped. Overlap is `gaussian_overlap`.
    Source: ultralytics, utils/ops.py, xywhr2xyxyxyxy.
    """

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        super().__init__(options, outputs, "obb", extra=1)

    def plan(self) -> dict[str, Tensor]:
        """`boxes`, `scores`, `classes` and `corners`."""
        return {**super().plan(), "corners": Tensor("float32", ("N", "count", 4, 2), ragged=True)}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        found = self.find(outputs, views, Overlap(gaussian_overlap, of_boxes=False), _enclosing)
        kept = found.candidates
        corners = found.way_back.points(_corners(kept), kept.rows, clip=False)
        return {**found.arrays(), "corners": found.ragged(corners)}


def gaussian_overlap(first: Array, second: Array) -> Array:
    """Overlap `[P]` of pairs of rotated boxes `[P, 5]`: x1, y1, x2, y2 before rotation, angle.

    1 less the Hellinger distance of two Gaussians with the means and covariances of the boxes.
    Source: Llerena et al. 2021, arXiv 2106.06072, and ultralytics, utils/metrics.py, probiou.
    """
    (xx, yy, xy), (other_xx, other_yy, other_xy) = _covariance(first), _covariance(second)
    x, y = ((second[:, :2] + second[:, 2:4] - first[:, :2] - first[:, 2:4]) / 2).T
    sum_xx, sum_yy, sum_xy = xx + other_xx, yy + other_yy, xy + other_xy
    spread = sum_xx * sum_yy - sum_xy**2
    away = (sum_xx * y**2 + sum_yy * x**2 - 2 * sum_xy * x * y) / (spread + _TINY) / 4
    own = np.maximum(xx * yy - xy**2, 0) * np.maximum(other_xx * other_yy - other_xy**2, 0)
    unlike = np.log(spread / (4 * np.sqrt(own) + _TINY) + _TINY) / 2
    distance = np.clip(away + unlike, _TINY, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + _TINY))


def _covariance(boxes: Array) -> tuple[Array, Array, Array]:
    """Return xx, yy and xy of the covariance of an even distribution over each rotated box."""
    width, height = ((boxes[:, 2:4] - boxes[:, :2]) ** 2 / 12).T
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return (
        width * cosine**2 + height * sine**2,
        width * sine**2 + height * cosine**2,
        (width - height) * cosine * sine,
    )


def _enclosing(found: Candidates) -> Array:
    """Return the boxes `[C, 4]` that enclose rotated boxes."""
    corners = _corners(found)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=-1)


def _corners(found: Candidates) -> Array:
    """Return corners `[C, 4, 2]` of boxes rotated around their centers: lower right first, then counterclockwise."""
    boxes, angles = found.boxes, found.extra[:, 0]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half_width, half_height = ((boxes[:, 2:] - boxes[:, :2]) / 2).T
    along = np.stack([half_width * np.cos(angles), half_width * np.sin(angles)], axis=-1)
    across = np.stack([-half_height * np.sin(angles), half_height * np.cos(angles)], axis=-1)
    corners = [center + along + across, center + along - across, center - along - across, center - along + across]
    return np.stack(corners, axis=1)
