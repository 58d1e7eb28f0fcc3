"""Resizes pictures of bytes by filters, on the CPU, in fixed point: every machine gives the same bytes."""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, gcd, prod

import numpy as np
from PIL import Image

from engines.canvas import padded
from engines.geometry import Middle, padded_from
from engines.part import Array
from schemas.picture import PictureSpec

_ONE = 1 << 11  # a bilinear weight of 1; two of them and a pixel fit into 31 bits
_CUBIC = -0.75
_BLOCK = 24_000  # values of a picture that are resized at once
_WIDE_PIXELS = 4_000_000  # of padded rows that are resized at once
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def filtered(pixels: Array, size: tuple[int, int], middle: Middle, spec: PictureSpec) -> Array:
    """Resize `[H, W(, C)]` uint8 to `size` (height, width) by the filter of `spec.resize`, and return the `middle`.

    Without antialias, a filter uses the nearest pixels however much a side shrinks, as in OpenCV and PyTorch:
    `bilinear_resize`, which computes only the middle, and `bicubic_resize`. The others, and nearest, are Pillow's, in
    fixed point, which gives the same bytes on every machine.
    """
    if is_pillows(spec):
        return middle.cut(_by_pillow(pixels, size, spec))
    if spec.resize == "bilinear":
        return bilinear_resize(pixels, size, middle)
    return middle.cut(bicubic_resize(pixels, size))


def is_pillows(spec: PictureSpec) -> bool:
    """Return whether Pillow has the filter of `spec.resize`."""
    return spec.resize in ("nearest", "lanczos") or (spec.resize in _PILLOW and spec.antialias)


def _by_pillow(pixels: Array, size: tuple[int, int], spec: PictureSpec) -> Array:
    return image_by_pillow(Image.fromarray(np.ascontiguousarray(pixels)), size, spec)


def image_by_pillow(image: Image.Image, size: tuple[int, int], spec: PictureSpec) -> Array:
    """Resize an image to `size` (height, width): `[H, W(, C)]` uint8, which may be read-only."""
    return np.asarray(image if (image.height, image.width) == size else image.resize(size[::-1], _PILLOW[spec.resize]))


def padded_by_pillow(pixels: Array, canvas: tuple[int, int], size: tuple[int, int], spec: PictureSpec) -> Array:
    """Pad `[H, W(, C)]` uint8 to `canvas` and resize that to `size`, without ever having all of the canvas in memory.

    Pillow resizes rows and then columns, with bytes between, so the same bytes come out: rows are padded and resized
    some at a time, and rows of padding alone, which stay as they are, are added behind that.
    """
    (height, width), (top, left) = canvas, padded_from((pixels.shape[0], pixels.shape[1]), canvas, spec)
    step = max(1, _WIDE_PIXELS // width)
    narrow = []
    for start in range(0, len(pixels), step):
        rows = pixels[start : start + step]
        wide = padded(rows, (len(rows), width), (0, left), spec.pad_value)
        narrow.append(_by_pillow(wide, (len(rows), size[1]), spec))
    return _by_pillow(padded(np.concatenate(narrow), (height, size[1]), (top, 0), spec.pad_value), size, spec)


def image_padded_by_pillow(
    image: Image.Image, canvas: tuple[int, int], size: tuple[int, int], spec: PictureSpec
) -> Array:
    """Do as `padded_by_pillow` does, with an RGB image and a gray level around it."""
    (height, width), (top, left) = canvas, padded_from((image.height, image.width), canvas, spec)
    how, ground = _PILLOW[spec.resize], (int(spec.pad_value),) * 3
    above, below = _flat_steps(height, size[0], top, height - top - image.height, spec)
    step_in, step_out = height // gcd(height, size[0]), size[0] // gcd(height, size[0])
    tall = Image.new("RGB", (size[1], height - (above + below) * step_in), ground)
    step = image.height if width == image.width else max(1, _WIDE_PIXELS // width)
    for start in range(0, image.height, step):
        wide, rows = image, min(step, image.height - start)
        if width != image.width:
            wide = Image.new("RGB", (width, rows), ground)
            wide.paste(image.crop((0, start, image.width, start + rows)), (left, 0))
        tall.paste(wide.resize((size[1], rows), how), (0, top + start - above * step_in))
    made = np.full((*size, 3), spec.pad_value, np.uint8)
    rest = size[0] - (above + below) * step_out
    made[above * step_out : above * step_out + rest] = image_by_pillow(tall, (rest, size[1]), spec)
    return made


def _flat_steps(height: int, to: int, above: int, below: int, spec: PictureSpec) -> tuple[int, int]:
    """Return how many steps of padding above and below need not be resized, because all that they are made of is flat.

    A step is the least number of rows that becomes a whole number of rows; lanczos would round differently.
    """
    if spec.resize not in ("bilinear", "bicubic"):
        return 0, 0
    reach = ceil(2 * max(1.0, height / to)) + 1
    step = height // gcd(height, to)
    return max(0, above - reach) // step, max(0, below - reach) // step


def bicubic_resize(pixels: Array, size: tuple[int, int]) -> Array:
    """Resize `[H, W(, C)]` uint8 to `size`; each pixel is made of the 4 x 4 nearest ones.

    Keys' cubic convolution with a = -0.75, as OpenCV's and PyTorch's without antialias; the edge is repeated. Weights
    have 11 bits, the result is rounded to nearest. All sums stay below 255 * (1.375 * 2048)**2, which 31 bits hold.
    """
    (rows, down), (columns, across) = (cubic_taps(length, to) for length, to in zip(pixels.shape, size, strict=False))
    colours = (1,) * (pixels.ndim - 2)
    made = np.empty((*size, *pixels.shape[2:]), np.uint8)
    for block in _row_blocks(made):
        first, last = rows[0, block][0], rows[3, block][-1] + 1
        near = pixels[first:last]
        over = np.zeros((last - first, *made.shape[1:]), np.int32)
        for tap in range(4):
            over += near.take(columns[tap], axis=1) * across[tap].reshape(1, -1, *colours)
        both = np.full(made[block].shape, _ONE * _ONE // 2, np.int32)
        for tap in range(4):
            both += over[rows[tap, block] - first] * down[tap, block].reshape(-1, 1, *colours)
        both >>= 22
        made[block] = np.clip(both, 0, 255)
    return made


@lru_cache(maxsize=64)
def cubic_taps(length: int, to: int) -> tuple[Array, Array]:
    """Return the four neighbours `[4, to]` of `to` pixels along a side of `length`, and their weights of 2048."""
    place = (np.arange(to) + 0.5) * length / to - 0.5
    first = np.floor(place).astype(np.int64)
    taps = np.arange(-1, 3).reshape(-1, 1)
    far = np.abs(place - first - taps)
    near = (_CUBIC + 2) * far**3 - (_CUBIC + 3) * far**2 + 1
    wide = _CUBIC * far**3 - 5 * _CUBIC * far**2 + 8 * _CUBIC * far - 4 * _CUBIC
    weights = np.rint(np.where(far <= 1, near, wide) * _ONE).astype(np.int32)
    weights[1] += _ONE - weights.sum(axis=0)  # so that flat pictures stay as they are
    return np.clip(first + taps, 0, length - 1), weights


def bilinear_resize(pixels: Array, size: tuple[int, int], middle: Middle) -> Array:
    """Resize `[H, W(, C)]` uint8 to `size` (height, width); only the `middle` of that is computed.

    Each pixel is made of the 2 x 2 nearest ones, as in PyTorch's `interpolate(mode="bilinear", align_corners=False)`,
    in fixed point: weights have 11 bits, and the result is rounded to nearest. So every device gives the same bytes.
    """
    (top, bottom, down), (left, right, across) = (
        bilinear_taps(length, to, first, kept)
        for length, to, first, kept in zip(pixels.shape, size, *middle, strict=False)
    )
    colours = (1,) * (pixels.ndim - 2)
    down, across = down.reshape(-1, 1, *colours), across.reshape(-1, *colours)
    made = np.empty((len(top), len(left), *pixels.shape[2:]), np.uint8)
    for block in _row_blocks(made):
        upper, lower = (
            _between(row.take(left, axis=1), row.take(right, axis=1), across)
            for row in (pixels[top[block]], pixels[bottom[block]])
        )
        both = _between(upper, lower, down[block])
        both += _ONE * _ONE // 2
        both >>= 22
        made[block] = both
    return made


def _between(first: Array, second: Array, weight: Array) -> Array:
    """Return `first * (_ONE - weight) + second * weight` in int32."""
    first = first.astype(np.int32)
    between: Array = second.astype(np.int32)
    between -= first
    between *= weight
    first <<= 11
    between += first
    return between


def _row_blocks(made: Array) -> Iterator[slice]:
    """Return slices of a picture's rows, so few that all sums stay in the CPU's cache: it takes half the time."""
    rows = max(1, _BLOCK // max(1, prod(made.shape[1:])))
    return (slice(start, start + rows) for start in range(0, len(made), rows))


@lru_cache(maxsize=64)
def bilinear_taps(length: int, to: int, start: int, kept: int) -> tuple[Array, Array, Array]:
    """Return the two neighbours of `kept` pixels, from `start` on, and the weights of the second ones, of 2048.

    A side of `length` pixels becomes `to` pixels; pixel `i` is at `(i + 1/2) length / to - 1/2`, at least at 0.
    """
    pixel = start + np.arange(kept)
    place = np.maximum((2 * pixel + 1) * length - to, 0)  # in units of 1 / (2 to)
    first, rest = np.divmod(place, 2 * to)
    weight = (rest * _ONE + to) // (2 * to)
    return first, np.minimum(first + 1, length - 1), weight.astype(np.int32)
