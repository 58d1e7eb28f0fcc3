"""Resizes pictures that are on a GPU, with the bytes of `engines.resizing.filtered`.

Filters that look at the nearest pixels sum across and down without rounding in between, as `bilinear_resize` and
`bicubic_resize` do. The others are Pillow's: the filter of one side gives bytes, of which the filter of the other makes
the picture, both with weights of 22 bits (Pillow 13, src/libImaging/Resample.c). All of it is integers, so that no GPU
rounds in its own way. One launch, or two of Pillow's, resizes any number of pictures of one size.
"""

import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import kept_table
from engines.cuda.filters import Taps, inside
from engines.cuda.kernels import RESAMPLE
from engines.cuda.kinds import Kind
from engines.cuda.pictures import Place, entire_picture
from engines.part import Array
from engines.resizing import bilinear_taps, cubic_taps

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_THREADS = 128
_PILLOW_BITS = 22
_NEAR_ONE = 1 << 11  # a weight of 1 of the filters that look at the nearest pixels
_NEAR_BITS = 22  # of two such weights
_CUBIC = -0.5
T = TypeVar("T")


def _triangle(far: Array) -> Array:
    return np.asarray(np.maximum(0, 1 - np.abs(far)))


def _cubic(far: Array) -> Array:
    far = np.abs(far)
    near = ((_CUBIC + 2) * far - (_CUBIC + 3)) * far * far + 1
    wide = (((far - 5) * far + 8) * far - 4) * _CUBIC
    return np.where(far < 1, near, np.where(far < 2, wide, 0))


def _lanczos(far: Array) -> Array:
    return np.where(np.abs(far) < 3, np.sinc(far) * np.sinc(far / 3), 0)


_WINDOWS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
    "lanczos": (_lanczos, 3),
}


@lru_cache(maxsize=256)
def resize_taps(length: int, to: int, resize: str, antialias: bool) -> Taps:
    """Return the filter of a side of `length` pixels that becomes `to`: `PictureSpec.resize`, all but area."""
    if resize == "nearest":
        ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
        places = np.asarray(ramp.resize((to, 1), Image.Resampling.NEAREST))[0]
        return Taps(places, np.ones((to, 1), np.int32))
    if resize == "bilinear" and not antialias:
        before, after, over = bilinear_taps(length, to, 0, to)
        return _folded(np.stack([before, after]), np.stack([_NEAR_ONE - over, over]), length)
    if resize == "bicubic" and not antialias:
        return _folded(*cubic_taps(length, to), length)
    return _of_pillow(length, to, *_WINDOWS[resize])


def _of_pillow(length: int, to: int, window: Callable[[Array], Array], reach: int) -> Taps:
    """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`."""
    scale = length / to
    wider = max(scale, 1.0)
    center = (np.arange(to) + 0.5) * scale
    first = np.maximum((center - reach * wider + 0.5).astype(np.int64), 0)  # C's cast: towards zero
    last = np.minimum((center + reach * wider + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(2 * math.ceil(reach * wider) + 1)
    weights = np.where(places < last[:, None], window((places - center[:, None] + 0.5) / wider), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * (1 << _PILLOW_BITS) + np.copysign(0.5, weights)).astype(np.int64)
    return _narrow(*inside(first, fixed, length))


def _folded(places: Array, weights: Array, length: int) -> Taps:
    """Return taps of neighbours `[K, N]`, of which those beyond the picture are its border pixels."""
    count = min(len(places), length)
    first = np.clip(places[0], 0, length - count)
    folded = np.zeros((count, places.shape[1]), np.int64)
    np.add.at(folded, (places - first, np.arange(places.shape[1])), weights)
    return _narrow(first, folded.T)


def _narrow(first: Array, weights: Array) -> Taps:
    return Taps(first.astype(np.int32), np.ascontiguousarray(weights, np.int32))


def _identity(length: int) -> Taps:
    return Taps(np.arange(length, dtype=np.int32), np.ones((length, 1), np.int32))


def _is_of_pillow(resize: str, antialias: bool) -> bool:
    return resize == "lanczos" or (antialias and resize != "nearest")


class Resampler:
    """Resizes pictures by one filter. Threads share it; what `queue` returns is held until its stream has run.

    `across_first`: always, also where Pillow would filter lines before columns.
    """

    def __init__(self, gpu: "CudaGpu", resize: str, antialias: bool = False, across_first: bool = False) -> None:
        self._gpu, self._resize, self._antialias = gpu, resize, antialias
        self._across_first = across_first
        self._kept: dict[Any, list[tuple[Kind, int]]] = {}
        self._lock = threading.Lock()

    def queue(self, rows: Sequence[GpuRow], targets: Sequence[int], place: Place, stream: Any) -> list[Any]:
        """Queue the resize of `rows`, all of one shape, each to its address of `targets`, as `place` says."""
        froms = [row.block.pointer for row in rows]
        held: list[Any] = [*rows]
        for kind, nbytes in self.passes(rows[0].shape, place):
            tos = list(targets)
            if nbytes:
                made = self._gpu.memory.take(len(rows) * nbytes)
                tos = [made.pointer + number * nbytes for number in range(len(rows))]
                held.append(made)
            kind.launch(self._gpu, [address for pair in zip(froms, tos, strict=True) for address in pair], stream)
            froms = tos
        return held

    def passes(self, shape: tuple[int, ...], place: Place) -> list[tuple[Kind, int]]:
        """Return the kernels for pictures of a shape, in order, and the bytes that each makes of one; 0: the last."""
        key = shape, place
        with self._lock:
            if key not in self._kept:
                tables: list[Any] = []
                *before, last = self._made(shape, place, tables)
                between = [(_kind(given, tables), int(given["height"] * given["stride_y"])) for given in before]
                self._kept[key] = [*between, (_kind(last, tables), 0)]
            return self._kept[key]

    def _made(self, shape: tuple[int, ...], place: Place, tables: list[Any]) -> list[Any]:
        source, channels = (shape[0], shape[1]), math.prod(shape[2:])
        filters = tuple(
            resize_taps(length, to, self._resize, self._antialias)
            for length, to in zip(source, place.scaled, strict=True)
        )
        if not _is_of_pillow(self._resize, self._antialias):
            bits = 0 if self._resize == "nearest" else _NEAR_BITS
            return [self._struct(filters, (bits, 0), source[1], channels, place, tables)]
        down_first = _is_down_first(source, place.scaled) and not self._across_first
        one, other = (0, 1) if down_first else (1, 0)  # the sides, as they are filtered
        used = filters[other].first[place.first[other] :][: place.size[other]]
        begin, end = int(used[0]), int(used[-1]) + filters[other].count  # what the second pass reads
        first = _swapped(place.first, other, begin)
        size = _swapped(place.size, other, end - begin)
        between = Place(place.scaled, first, size, 0, (size[1] * channels, channels), False)
        ends = Place(place.scaled, _swapped(place.first, one, 0), place.size, 0, place.strides, False)
        moved = Taps(filters[other].first - begin, filters[other].weights)
        return [
            self._struct(
                _swapped(filters, other, _identity(source[other])), _bits(one), source[1], channels, between, tables
            ),
            self._struct(
                _swapped(filters, other, moved, _identity(size[one])), _bits(other), size[1], channels, ends, tables
            ),
        ]

    def _struct(
        self,
        filters: tuple[Taps, ...],
        bits: tuple[int, int],
        line: int,
        channels: int,
        place: Place,
        tables: list[Any],
    ) -> Any:
        """Return the struct of a pass; of each pair the first is of the lines. `line`: pixels of one that is read."""
        given = np.zeros((), RESAMPLE)
        for side, taps, dropped in zip("yx", filters, bits, strict=True):
            given[f"{side}_first"] = kept_table(self._gpu, taps.first, tables)
            given[side] = kept_table(self._gpu, taps.weights, tables)
            given[f"{side}_taps"], given[f"{side}_bits"] = taps.count, dropped
        given["pitch"], given["channels"] = line * channels, channels
        place.into(given)
        return given


def _kind(given: Any, tables: list[Any]) -> Kind:
    across = -(-int(given["width"]) * int(given["height"]) // _THREADS)
    return Kind("resample", given, (across, 1), (_THREADS, 1, 1), 2, tables)


def _is_down_first(source: tuple[int, int], scaled: tuple[int, int]) -> bool:
    """Return whether Pillow 13 filters down before across: `ImagingResampleInner`."""
    lines, columns = (length - to for length, to in zip(source, scaled, strict=True))
    return lines > 0 and lines > 2 * columns


def _swapped(pair: tuple[T, ...], at: int, value: T, *rest: T) -> tuple[T, T]:
    """Return a pair with `value` at one place, and at the other what is there or `rest`."""
    other = rest[0] if rest else pair[1 - at]
    return (value, other) if at == 0 else (other, value)


def _bits(side: int) -> tuple[int, int]:
    return (_PILLOW_BITS, 0) if side == 0 else (0, _PILLOW_BITS)


def resized_rows(pictures: GpuRows, size: tuple[int, int], resize: str, antialias: bool = False) -> GpuRows:
    """Return pictures `[N, H, W(, 3)]` uint8 at `size` (height, width). Raises DeviceLost."""
    gpu, inner = pictures.rows[0].gpu, pictures.shape[3:]
    shape = (*size, *inner)
    with gpu.guarded():
        made = [GpuRow(gpu, gpu.memory.take(math.prod(shape)), shape) for _ in pictures.rows]
        place = entire_picture(size, math.prod(inner))
        targets, stream = [row.block.pointer for row in made], gpu.stream()
        held = Resampler(gpu, resize, antialias).queue(pictures.rows, targets, place, stream)
        stream.synchronize()
        del held
    return GpuRows(made)
