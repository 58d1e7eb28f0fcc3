"""Computes the filter taps and colour coefficients of the scaling kernel, in the integers of swscale.

The kernel must give the results of `engines.transforms`, so the arithmetic is that of swscale's exact C path: 14-bit
taps across, sums kept in 15 bits, 12-bit taps down, 8-bit Y, Cb and Cr, then the matrix. All of it is integers: no GPU
can round differently from another. Pure NumPy: computed once for each geometry, on the host.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engines.part import Array

ACROSS_ONE, DOWN_ONE = 1 << 14, 1 << 12
_ONE = 1 << 54
_CUTOFF = 0.002  # taps at either end that together weigh less than this are left out
_MIDDLE, _LEFT = 128, 64  # position of a sample inside its cell, of 256: chroma of MPEG video is at the left
# H.273's matrices as swscale has them: Cr to R, Cb to B, Cb to G, Cr to G at limited range, 16.16, by AVColorSpace
_MATRICES = {
    1: (117489, 138438, 13975, 34925),
    4: (104448, 132798, 24759, 53109),
    5: (104597, 132201, 25675, 53279),
    6: (104597, 132201, 25675, 53279),
    7: (117579, 136230, 16907, 35559),
    9: (110013, 140363, 12277, 42626),
}
_BT601 = (5, 6)


@dataclass(frozen=True, slots=True)
class Taps:
    """One direction of a filter: output `i` is the sum over `j` of `weights[i, j] * source[first[i] + j]`.

    `first [N]` int32, `weights [N, K]` int16 (int32 in `engines.cuda.resampling`); all samples lie inside the source.
    """

    first: Array
    weights: Array

    @property
    def count(self) -> int:
        """K, the taps of each output."""
        return int(self.weights.shape[1])


@lru_cache(maxsize=256)
def taps(source: int, target: int, cubic: bool, one: int, left: bool = False) -> Taps:
    """Return the filter from `source` samples to `target`: an area if it shrinks, linear or `cubic` if it grows.

    `left`: source samples are a quarter of a cell further left than those of the target.
    """
    step = ((source << 16) + (target >> 1)) // target
    offset = _LEFT if left else _MIDDLE
    if abs(step - 0x10000) < 10 and offset == _MIDDLE:
        return Taps(np.arange(target, dtype=np.int32), np.full((target, 1), one, np.int16))
    if cubic:
        first, raw = _windowed(source, target, step, offset, 4)
    elif step <= 0x10000:
        first, raw = _linear(target, step, offset)
    else:
        first, raw = _windowed(source, target, step, offset, 1)
    first, raw = _trimmed(first, raw)
    return _quantised(*inside(first, raw, source), one)


def colour_table(matrix: int, full: bool, each: bool) -> Array:
    """Return `[6]` int32: slope and offset of luma, Cr to R, Cb to B, Cb to G, Cr to G.

    If two pixels share their chroma, swscale moves an index into a table of luma by whole steps, all 16.16. If `each`
    pixel has its own, it multiplies, with luma's offset in 9 bits of fraction and the rest in 13.
    """
    red, blue, green_blue, green_red = _MATRICES[matrix]
    slope, black = 1 << 16, 0
    if full:
        red, blue, green_blue, green_red = (value * 224 // 255 for value in (red, blue, green_blue, green_red))
    else:
        slope, black = slope * 255 // 219, 16 << 16
    moves = (red, blue, -green_blue, -green_red)
    if each:
        return np.array([_round16(slope << 13), black >> 7, *(_round16(move << 13) for move in moves)], np.int32)
    base = 0 if full else (384 << 16) + black - 326 * slope
    return np.array([slope, base, *((move * 65536 + 0x8000) // slope for move in moves)], np.int32)


def inverse_matrix(matrix: int) -> Array:
    """Return `[9]` int32: R, G and B to Y, Cb and Cr of limited range, with 15 bits of fraction."""
    red, blue, green_blue, green_red = _MATRICES[matrix]
    if matrix in _BT601:  # swscale has these as they are
        shares = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.500), (0.500, -0.419, -0.081))
        spans = 219, 224, 224
        fixed = [[round(share * span / 255 * 32768) for share in row] for row, span in zip(shares, spans, strict=True)]
        return np.array(fixed, np.int32).reshape(-1)
    one = 1 << 16
    blue_share, red_share = _divided(-one * one * green_blue, blue), _divided(-one * one * green_red, red)
    rest = one * one - blue_share - red_share
    luma, to_blue, to_red = (_divided(each * rest, one) for each in (one * 255 // 219, blue, red))
    table = [(-red_share, one * one, -blue_share), (red_share, -one * one, rest + blue_share)]
    table.append((red_share + rest, -one * one, blue_share))
    scales = luma, to_blue, to_red
    fixed = [[_divided((1 << 15) * share, scale) for share in row] for row, scale in zip(table, scales, strict=True)]
    return np.array(fixed, np.int32).reshape(-1)


def _divided(value: int, by: int) -> int:
    """FFmpeg's ROUNDED_DIV."""
    half = by // 2
    return -((-value + half) // by) if value < 0 else (value + half) // by


def _round16(value: int) -> int:
    return (value + 0x8000) >> 16


def _linear(target: int, step: int, offset: int) -> tuple[Array, Array]:
    """Return two taps for each output, by distance."""
    at = (((_MIDDLE * step) >> 8) - ((offset * 0x8000) >> 7)) + step * np.arange(target, dtype=np.int64)
    first = (at - (1 << 15) + (1 << 15)) >> 16
    places = first[:, None] + np.arange(2)
    weights = np.maximum(0, _ONE - np.abs((places << 16) - at[:, None]) * (_ONE >> 16))
    return first, weights


def _windowed(source: int, target: int, step: int, offset: int, reach: int) -> tuple[Array, Array]:
    """Return an area filter (`reach` 1) or a cubic (`reach` 4), stretched if the picture shrinks."""
    grows = step <= 0x10000
    count = 1 + reach if grows else 1 + (reach * source + target - 1) // target
    count = max(1, min(count, source - 2))
    at = ((_MIDDLE * step) >> 7) - ((offset * 0x10000) >> 7) + 2 * step * np.arange(target, dtype=np.int64)
    start = at - (count - 2) * (1 << 16)
    first = np.sign(start) * (np.abs(start) >> 17)  # towards zero, as C divides
    places = first[:, None] + np.arange(count)
    distance = np.abs((places << 17) - at[:, None]) << 13
    if not grows:
        distance = distance * target // source
    return first, _cubic(distance) if reach == 4 else _area(distance, step)


def _area(distance: Array, step: int) -> Array:
    beyond = (distance - (1 << 29)) * step
    edge = 1 << (29 + 16)
    return np.where(beyond < -edge, 1 << 46, np.where(beyond < edge, edge - beyond, 0)) * (_ONE >> 46)


def _cubic(distance: Array) -> Array:
    """Keys' kernel with a = -0.6."""
    unit = 1 << 24
    sharp = int(0.6 * unit)
    square = distance * distance >> 30
    cube = square * distance >> 30
    near = (12 * unit - 6 * sharp) * cube + (-18 * unit + 6 * sharp) * square + ((6 * unit) << 30)
    far = -6 * sharp * cube + 30 * sharp * square - 48 * sharp * distance + ((24 * sharp) << 30)
    weights = np.where(distance < 1 << 30, near, np.where(distance < 1 << 31, far, 0))
    return weights // ((1 << 54) // _ONE)


def _trimmed(first: Array, raw: Array) -> tuple[Array, Array]:
    """Return the filter without the small taps at its ends."""
    limit = _CUTOFF * _ONE
    first, raw = first.copy(), raw.copy()
    longest = 0
    for i in range(len(raw) - 1, -1, -1):
        left = 0
        cut = np.abs(raw[i]).astype(np.float64).cumsum()
        while left < raw.shape[1] and cut[left] <= limit and (i == len(raw) - 1 or first[i] + left < first[i + 1]):
            left += 1
        if left:
            raw[i] = np.concatenate([raw[i, left:], np.zeros(left, raw.dtype)])
            first[i] += left
        cut = np.abs(raw[i, ::-1]).astype(np.float64).cumsum()
        right = int(np.searchsorted(cut[:-1], limit, side="right"))
        longest = max(longest, raw.shape[1] - right)
    return first, raw[:, : max(1, longest)]


def inside(first: Array, raw: Array, source: int) -> tuple[Array, Array]:
    """Return the same filter with taps outside the picture moved to its border pixels."""
    count = min(raw.shape[1], source)
    start = np.clip(first, 0, source - count)
    places = np.clip(first[:, None] + np.arange(raw.shape[1]), 0, source - 1) - start[:, None]
    inside = np.zeros((len(raw), count), np.int64)
    np.add.at(inside, (np.arange(len(raw))[:, None], np.clip(places, 0, count - 1)), raw)
    return start, inside


def _quantised(first: Array, raw: Array, one: int) -> Taps:
    """Return weights that sum to `one`; the rounding error of a tap is added to the next tap."""
    unit = np.maximum(1, (raw.sum(axis=1) + one // 2) // one)
    weights = np.zeros(raw.shape, np.int16)
    error = np.zeros(len(raw), np.int64)
    for j in range(raw.shape[1]):
        value = raw[:, j] + error
        rounded = np.where(value >= 0, (value + (unit >> 1)) // unit, -((-value + (unit >> 1)) // unit))
        weights[:, j] = np.minimum(rounded, 32767)
        error = value - rounded * unit
    return Taps(first.astype(np.int32), weights)
