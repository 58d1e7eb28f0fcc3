"""The position of a model's picture in its source, and coordinates of the source from those of the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from engines.geometry import cropped_from, scaled_size
from engines.part import Array
from schemas.picture import PictureSpec

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """The geometry of a picture that is made of a source, both upright; sizes are (height, width).

    The source was scaled to `scaled`, and its upper left corner lies at row `top` and column `left` of the picture:
    positive where the picture is padded, negative where it is cropped.
    """

    source: Size
    picture: Size
    scaled: Size
    top: int = 0
    left: int = 0

    @property
    def height(self) -> int:
        """Height of the source."""
        return self.source[0]

    @property
    def width(self) -> int:
        """Width of the source."""
        return self.source[1]

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The part of the picture that shows the source: top, left, bottom, right."""
        (height, width), (scaled_height, scaled_width) = self.picture, self.scaled
        bottom, right = min(height, self.top + scaled_height), min(width, self.left + scaled_width)
        return max(0, self.top), max(0, self.left), bottom, right

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """The part of the source that the picture shows, to the nearest pixel: top, left, bottom, right."""
        rows, columns = self.source[0] / self.scaled[0], self.source[1] / self.scaled[1]
        top, left, bottom, right = self.content
        return (
            round((top - self.top) * rows),
            round((left - self.left) * columns),
            round((bottom - self.top) * rows),
            round((right - self.left) * columns),
        )


def view_of(source: Size, spec: PictureSpec) -> View:
    """Return the view of an upright source (height, width) by `spec`, in the integers of `engines.geometry`."""
    if spec.size == "source":
        picture = tuple(-(-side // spec.multiple) * spec.multiple for side in source)
        return View(source, (picture[0], picture[1]), source)
    scaled = scaled_size(source, spec.size, spec)
    if spec.fit == "crop":
        top, left = (-cropped_from(side, kept) for side, kept in zip(scaled, spec.size, strict=True))
    elif spec.pad_place == "center":
        top, left = ((side - used) // 2 for side, used in zip(spec.size, scaled, strict=True))
    else:
        top, left = 0, 0
    return View(source, spec.size, scaled, top, left)


class WayBack:
    """Converts coordinates in the pictures of a batch to coordinates in their sources."""

    def __init__(self, views: Sequence[View]) -> None:
        self._alike = bool(views) and views.count(views[0]) == len(views)
        different = views[:1] if self._alike else views
        sizes = np.array([(*v.source, *v.scaled, v.top, v.left) for v in different], np.float64).reshape(-1, 3, 2)
        self._sizes, scaled, self._starts = sizes[:, :, ::-1].swapaxes(0, 1)  # each [N, 2]: x, y
        self._ratios = self._sizes / scaled

    def points(self, points: Array, rows: Array, clip: bool = True) -> Array:
        """Return points `[M, ..., 2]` of x, y in pixels of the source, float32; 0, 0 is the corner of the first pixel.

        `rows [M]`: the row of the picture of each point. `clip` moves points outside the source to its border.
        """
        found = points.astype(np.float64)
        for axis, fields in enumerate(zip(self._starts.T, self._ratios.T, self._sizes.T, strict=True)):
            start, ratio, size = (self._of_rows(field, rows, points.ndim) for field in fields)
            values = found[..., axis]  # NumPy takes half the time for one axis after the other
            values -= start
            values *= ratio
            if clip:
                np.clip(values, 0, size, out=values)
                values += 0.0  # makes 0 of -0, which clip leaves where both bounds are single values
        return np.asarray(found, np.float32)

    def _of_rows(self, field: Array, rows: Array, ndim: int) -> Any:
        """Return the values of rows, for arrays of `ndim` dimensions; one value if all pictures are alike."""
        return field[0] if self._alike else field[rows].reshape(-1, *(1,) * (ndim - 2))

    def boxes(self, boxes: Array, rows: Array) -> Array:
        """Return boxes `[M, 4]` of x1, y1, x2, y2 in pixels of the source, clipped to it; float32."""
        return self.points(boxes.reshape(-1, 2, 2), rows).reshape(-1, 4)
