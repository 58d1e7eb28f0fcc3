"""Pictures cut out of others by a matrix: similarities from points, quadrilaterals, and Pillow's sampling of both.

A matrix `[3, 3]` float64 takes a place of one picture to a place of another; 0, 0 is the corner of the first pixel. No
sum here is left to a library that computes it in another order, or with fused products, on another processor.
"""

from collections.abc import Sequence
from math import ceil, floor, fsum, inf, sqrt
from typing import TypeAlias

import numpy as np
from PIL import Image

from engines.part import Array

Size: TypeAlias = tuple[int, int]  # height, width
Colour: TypeAlias = tuple[int, int, int]
_MARGIN = 3  # pixels around a region that a filter reads


def similarity(points: Array, template: Array) -> Array | None:
    """Return the rotation, scale and shift that bring `points [K, 2]` nearest to `template [K, 2]`; least squares.

    None where all points are one. Source: Umeyama (1991), "Least-squares estimation of transformation parameters
    between two point patterns"; in the plane it has this closed form, without reflections.
    """
    given, wanted = ([(float(x), float(y)) for x, y in each] for each in (points, template))
    count = len(given)
    (px, py), (tx, ty) = (
        (fsum(x for x, _ in each) / count, fsum(y for _, y in each) / count) for each in (given, wanted)
    )
    pairs = [(x - px, y - py, u - tx, v - ty) for (x, y), (u, v) in zip(given, wanted, strict=True)]
    spread = fsum(x * x + y * y for x, y, _, _ in pairs)
    real = fsum(x * u + y * v for x, y, u, v in pairs)
    imaginary = fsum(x * v - y * u for x, y, u, v in pairs)
    if not (0 < spread < inf and 0 < real * real + imaginary * imaginary < inf):
        return None
    a, b = real / spread, imaginary / spread
    return np.array([[a, -b, tx - a * px + b * py], [b, a, ty - b * px - a * py], [0, 0, 1]])


def quadrilateral(corners: Array, size: Size) -> Array | None:
    """Return the matrix that takes a picture of `size` to the quadrilateral of `corners [4, 2]`, clockwise from 0, 0.

    None where three corners lie in a line. Source: Heckbert (1989), "Fundamentals of Texture Mapping and Image
    Warping", section 2.2.3.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = np.asarray(corners, np.float64).tolist()
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    if area == 0:
        return None
    g, h = (dx3 * dy2 - dx2 * dy3) / area, (dx1 * dy3 - dx3 * dy1) / area
    rows = [[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]]
    height, width = size
    return np.asarray(np.array(rows) / np.array([width, height, 1.0]))


def inverse(matrix: Array) -> Array:
    """Return the inverse of a matrix, by its cofactors: the same bits on every machine."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    cofactors = np.array(
        [
            [e * i - f * h, c * h - b * i, b * f - c * e],
            [f * g - d * i, a * i - c * g, c * d - a * f],
            [d * h - e * g, b * g - a * h, a * e - b * d],
        ]
    )
    return np.asarray(cofactors / (a * cofactors[0, 0] + b * cofactors[1, 0] + c * cofactors[2, 0]))


def of_centres(matrix: Array) -> Array:
    """Return a matrix between pixel corners from one between pixel centres, in which 0, 0 is the first centre."""
    return product(moved(0.5, 0.5), matrix, moved(-0.5, -0.5))


def product(first: Array, *others: Array) -> Array:
    """Return the matrix of several, of which the last is applied first."""
    for other in others:
        first = first[:, 0:1] * other[0] + first[:, 1:2] * other[1] + first[:, 2:3] * other[2]
    return first


def moved(x: float, y: float) -> Array:
    """Return the matrix of a shift."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaled(x: float, y: float) -> Array:
    """Return the matrix of a change of scale."""
    return np.diag([x, y, 1.0])


def side_of(matrix: Array, size: Size) -> float:
    """Return the side of a square with the area that a picture of `size` has behind a matrix, in pixels."""
    points = outline(matrix, size)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points.tolist()
    return sqrt(abs((x2 - x0) * (y3 - y1) - (x3 - x1) * (y2 - y0)) / 2)


def outline(matrix: Array, size: Size) -> Array:
    """Return the corners `[4, 2]` of a picture of `size` behind a matrix."""
    height, width = size
    corners = np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    x, y, scale = product(matrix, corners)
    return np.stack([x / scale, y / scale], axis=1)


def region(matrix: Array, size: Size, within: Size, step: int = 0) -> tuple[slice, slice] | None:
    """Return rows and columns of a picture `within` which a picture of `size` covers behind a matrix; None: none.

    With `step`, three steps more at each side, where there are as many, in whole steps.
    """
    points = outline(matrix, size)
    if not np.isfinite(points).all():
        return None
    sides = []
    for low, high, most in zip(points.min(axis=0).tolist(), points.max(axis=0).tolist(), within[::-1], strict=True):
        first = floor(max(-most, low))
        start = max(first - _MARGIN * step, first % step if step else 0)
        sides.append(slice(start, min(most, ceil(min(high, most)) + _MARGIN * step)))
    columns, rows = sides
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def warped(
    pixels: Array,
    matrix: Array,
    size: Size,
    border: Colour = (0, 0, 0),
    by: Image.Resampling = Image.Resampling.BILINEAR,
    averaged_by: Image.Resampling | None = None,
    averages: bool = True,
) -> Array:
    """Return a picture of `size`, `[h, w, C]` float32, whose places `matrix` takes to those of `pixels` `[H, W, C]`.

    Outside of `pixels`, uint8 or float32, there is `border`. Where the picture shrinks to half or less, areas of whole
    pixels are averaged before, so that no pixel is left out; the rest is `by` neighbours, of averages `averaged_by` if
    that is given. Pillow computes both, of floats: of bytes it rounds down. Without `averages`, no areas are averaged:
    `cv2.warpAffine` leaves out pixels where the picture shrinks.
    """
    made = np.empty((*size, pixels.shape[2]), np.float32)
    made[:] = border[: pixels.shape[2]]
    shrinks = side_of(matrix, size) / sqrt(size[0] * size[1])
    step = int(max(1, min(shrinks, *pixels.shape[:2]))) if averages else 1
    inside = region(matrix, size, (pixels.shape[0], pixels.shape[1]), step)
    if inside is None:
        return made
    rows, columns = inside
    matrix = product(scaled(1 / step, 1 / step), moved(-columns.start, -rows.start), matrix)
    values = (matrix / matrix[2, 2]).reshape(-1).tolist()[:8]
    by = averaged_by if averaged_by is not None and step > 1 else by
    flat = values[6] == values[7] == 0
    method, data = (Image.Transform.AFFINE, values[:6]) if flat else (Image.Transform.PERSPECTIVE, values)
    for channel in range(pixels.shape[2]):
        image = Image.fromarray(pixels[rows, columns, channel].astype(np.float32))
        image = image.reduce(step) if step > 1 else image
        fill = border[channel]
        made[..., channel] = np.asarray(image.transform(size[::-1], method, data, by, fillcolor=fill))
    return made


def to_bytes(values: Array) -> Array:
    """Return values of 0 ... 255 as uint8, rounded to nearest, halves to even."""
    return np.asarray(np.rint(np.clip(values, 0, 255)), np.uint8)


def template_of(points: Sequence[tuple[float, float]], size: Size) -> Array:
    """Return points that are given as shares of the sides, in pixels of a picture of `size`."""
    return np.array(points, np.float64) * np.array(size[::-1], np.float64)
