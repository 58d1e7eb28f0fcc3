"""The planes of pictures that are drawn on, on the host; `engines.cuda.draw` has those on a GPU."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from engines.part import Array

OPAQUE = 255


class Surface(Protocol):
    """The planes of one picture, which a canvas changes; `sizes` are their (height, width)."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each plane."""
        ...

    def mix(self, plane: int, top: int, left: int, share: Array, value: int) -> None:
        """Mix `value` into the samples from (top, left) on, by `share [h, w]` uint8, 255 for `value` alone."""
        ...

    def fill(self, plane: int, top: int, left: int, bottom: int, right: int, value: int) -> None:
        """Set the samples from (top, left) to before (bottom, right)."""
        ...

    def tint(self, plane: int, classes: Array, step: tuple[int, int], values: Array, shares: Array) -> None:
        """Mix `values[c]` by `shares[c]` into each sample, `[256]` uint8 each.

        c is the class of the sample's first pixel: `classes [H, W]` uint8, of which a sample has `step` (down, across).
        """
        ...


class HostSurface:
    """Planes `[h, w]` uint8 on the host, which are written to."""

    def __init__(self, planes: Sequence[Array]) -> None:
        self._planes = planes

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each plane."""
        return [(plane.shape[0], plane.shape[1]) for plane in self._planes]

    def mix(self, plane: int, top: int, left: int, share: Array, value: int) -> None:
        """Mix as `Surface.mix`."""
        height, width = share.shape
        _mix(self._planes[plane][top : top + height, left : left + width], share, value)

    def fill(self, plane: int, top: int, left: int, bottom: int, right: int, value: int) -> None:
        """Fill as `Surface.fill`."""
        self._planes[plane][top:bottom, left:right] = value

    def tint(self, plane: int, classes: Array, step: tuple[int, int], values: Array, shares: Array) -> None:
        """Tint as `Surface.tint`."""
        samples = self._planes[plane]
        which = classes[:: step[0], :: step[1]].astype(np.uint16) << 8
        np.take(_tints(values.tobytes(), shares.tobytes()), which | samples, out=samples)


class HostDrawing:
    """Planes `[N, h, w]` uint8 of N pictures on the host. The given ones stay as they are."""

    def __init__(self, planes: Sequence[Array]) -> None:
        self._planes = [np.array(plane) for plane in planes]

    def surface(self, number: int) -> HostSurface:
        """Return the picture of that number, to draw on."""
        return HostSurface([plane[number] for plane in self._planes])

    def finish(self) -> list[Array]:
        """Return the planes of all pictures, with what was drawn."""
        return self._planes


def _mix(place: Array, mask: Array, value: Array | int) -> None:
    """Blend `value` into `place` by the mask, rounded to nearest."""
    weight = mask.astype(np.uint16)
    place[:] = (place * (OPAQUE - weight) + np.uint16(value) * weight + OPAQUE // 2) // OPAQUE


@lru_cache(maxsize=16)
def _tints(values: bytes, shares: bytes) -> Array:
    """Return the blended samples, at `class * 256 + sample`; `values` and `shares` have a byte for each class."""
    mixed = np.tile(np.arange(256, dtype=np.uint8), (len(values), 1))
    _mix(mixed, np.frombuffer(shares, np.uint8)[:, None], np.frombuffer(values, np.uint8)[:, None])
    return mixed.reshape(-1)
