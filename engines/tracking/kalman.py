"""The Kalman filter of SORT, DeepSORT and ByteTrack: where boxes move, at a constant velocity, in frames.

A box is (center x, center y, width / height, height). The standard deviations are shares of the height: 1/20 of
positions and 1/160 of velocities; of the ratio 0.01 (0.1 of a measured one) and 0.00001. Source: N. Wojke, A. Bewley,
D. Paulus, "Simple Online and Realtime Tracking with a Deep Association Metric", 2017, and its code, which ByteTrack
uses unchanged.

There the state has eight numbers and an 8x8 covariance. All noise is diagonal, and each of the four numbers is coupled
with its own velocity alone, so these are four filters of two numbers each. That needs no linear algebra, and gives the
same bits on every machine.
"""

from dataclasses import dataclass

import numpy as np

from engines.part import Array

_POSITION, _VELOCITY = 1 / 20, 1 / 160
_RATIO = 2  # the place of width / height in a box


@dataclass(slots=True)
class Motion:
    """The states of N boxes, each array `[N, 4]` float64: positions, velocities, and the entries of covariances."""

    position: Array
    velocity: Array
    variance: Array  # of the position
    covariance: Array  # of position and velocity
    velocity_variance: Array

    @classmethod
    def begun(cls, boxes: Array) -> "Motion":
        """Begin with measured boxes `[N, 4]`, at rest."""
        height = boxes[:, 3]
        still = np.zeros_like(boxes)
        variance = _squared(2 * _POSITION * height, 1e-2)
        return cls(boxes.copy(), still, variance, still.copy(), _squared(10 * _VELOCITY * height, 1e-5))

    @classmethod
    def joined(cls, parts: "list[Motion]") -> "Motion":
        """Return the states of all parts, in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def taken(self, chosen: Array) -> "Motion":
        """Return the states of these numbers."""
        return Motion(*(getattr(self, name)[chosen] for name in self.__slots__))

    def predict(self, which: Array) -> None:
        """Move the states `which [M]` on by one frame."""
        height, velocity, covariance = self.position[which, 3], self.velocity[which], self.covariance[which]
        of_velocity = self.velocity_variance[which]
        self.position[which] += velocity
        self.variance[which] += 2 * covariance + of_velocity + _squared(_POSITION * height, 1e-2)
        self.covariance[which] += of_velocity
        self.velocity_variance[which] += _squared(_VELOCITY * height, 1e-5)

    def correct(self, which: Array, boxes: Array) -> None:
        """Take the boxes `[M, 4]` that were measured of the states `which [M]`."""
        position, variance, covariance = self.position[which], self.variance[which], self.covariance[which]
        whole = variance + _squared(_POSITION * position[:, 3], 1e-1)
        off = boxes - position
        self.position[which] = position + variance / whole * off
        self.velocity[which] += covariance / whole * off
        self.variance[which] = variance - variance * variance / whole
        self.covariance[which] = covariance - variance * covariance / whole
        self.velocity_variance[which] -= covariance * covariance / whole


def _squared(deviation: Array, of_ratio: float) -> Array:
    """Return variances `[N, 4]`: `deviation [N]` squared, and of the ratio its own."""
    variances = np.repeat((deviation * deviation)[:, None], 4, axis=1)
    variances[:, _RATIO] = of_ratio * of_ratio
    return variances


def measured(boxes: Array) -> Array:
    """Return boxes x1, y1, x2, y2 `[N, 4]` as this filter measures them; a side is at least a thousandth of a pixel."""
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    centers = boxes[:, :2] + sizes / 2
    return np.concatenate([centers, sizes[:, :1] / sizes[:, 1:], sizes[:, 1:]], axis=1)


def corners(states: Array) -> Array:
    """Return states of this filter `[N, 4]` as boxes x1, y1, x2, y2."""
    sizes = np.stack([states[:, 2] * states[:, 3], states[:, 3]], axis=1)
    start = states[:, :2] - sizes / 2
    return np.concatenate([start, start + sizes], axis=1)
