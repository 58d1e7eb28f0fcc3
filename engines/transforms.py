"""Makes arrays of frames on the CPU, by swscale; tests compare the transforms of other devices with these.

Resizing averages areas if a side shrinks, and is bicubic if both grow; `resize = "bilinear"` uses two pixels in each
direction, as PyTorch does. swscale rounds accurately and bit-exactly, so that machines with different vector units give
the same bytes. Colours are explained in `engines.media.colours`.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from engines.canvas import laid_on, padded
from engines.geometry import Middle, entire, middle_of, padded_from, scaled_size, square_of
from engines.media.colours import BT601, colour_matrix, plane_format
from engines.media.frames import plane_rows
from engines.media.orientation import UPRIGHT, transposes, upright
from engines.media.reshape import EXACT, Reshape, Siting
from engines.part import Array
from schemas.errors import ItemTooLarge, MediaError
from schemas.picture import PictureSpec

_SHRINKING, _GROWING = Interpolation.AREA | EXACT, Interpolation.BICUBIC | EXACT
_MOST_PIXELS = 100_000_000
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
_FORMATS = {"rgb": "rgb24", "gray": "gray"}
_IMAGES = {"rgb24": 3, "rgba": 4}  # what images are decoded to for planes, and its channels


class Picture:
    """Makes pictures of one `PictureSpec` of single frames. Not thread-safe: use one instance for each thread."""

    def __init__(self, spec: PictureSpec) -> None:
        self.spec = spec
        self._reformatter = VideoReformatter()
        self._siting = Siting()
        self._reshape = Reshape()

    def convert(self, frame: av.VideoFrame, orientation: int = UPRIGHT) -> list[Array]:
        """Return the picture of one frame, uint8, contiguous and upright; `orientation` is EXIF's, from 1 to 8.

        `rgb`: one array `[H, W, 3]`; `gray`: one array `[H, W]`, luma in full range, of RGB by BT.601; `planes`: one
        array for each plane, `[H, W]`, `[H', W']` ... in 8 bits, see `plane_format`; of images, which are rgb24 or
        rgba, R, G, B (and A). Raises ItemTooLarge and MediaError for sizes that cannot be scaled.
        """
        if self.spec.layout == "planes":
            return [upright(plane, orientation) for plane in self._planes(frame)]
        if self.spec.layout == "alpha":
            return [np.ascontiguousarray(upright(_opacity(frame), orientation))]
        if self.spec.size != "source":
            return [self._pixels(frame, self.spec.size, orientation)]
        size = (frame.width, frame.height) if transposes(orientation) else (frame.height, frame.width)
        return [_multiple(self._pixels(frame, size, orientation), self.spec)]

    def _planes(self, frame: av.VideoFrame) -> list[Array]:
        channels = _IMAGES.get(frame.format.name)
        if channels:
            pixels = plane_rows(frame, 0).reshape(frame.height, frame.width, channels)
            return [pixels[..., channel] for channel in range(channels)]
        frame = self._reshape(frame, plane_format(frame.format.name), (frame.height, frame.width))
        return [plane_rows(frame, number) for number in range(len(frame.planes))]

    def _pixels(self, frame: av.VideoFrame, size: tuple[int, int], orientation: int) -> Array:
        """Return the frame at `size` (height, width). It is scaled before it is turned, which moves fewer bytes."""
        if self.spec.background is not None and frame.format.name == "rgba":
            rgba = plane_rows(frame, 0).reshape(frame.height, frame.width, 4)
            frame = av.VideoFrame.from_ndarray(laid_on(rgba, self.spec.background), "rgb24")
        if self.spec.fit == "pad" and self.spec.size != "source":
            return self._squared(frame, size, orientation)
        target = size[::-1] if transposes(orientation) else size
        scaled = scaled_size((frame.height, frame.width), target, self.spec)
        pixels = upright(self._resized(frame, scaled, middle_of(scaled, target, orientation)), orientation)
        return self._padded(pixels, size)

    def _padded(self, pixels: Array, size: tuple[int, int]) -> Array:
        first = padded_from((pixels.shape[0], pixels.shape[1]), size, self.spec)
        return padded(pixels, size, first, self.spec.pad_value)

    def _squared(self, frame: av.VideoFrame, size: tuple[int, int], orientation: int) -> Array:
        """Return the frame, upright, padded to the shape of `size`, and scaled."""
        source = frame.height, frame.width
        pixels = upright(self._resized(frame, source, entire(source)), orientation)
        canvas = square_of((pixels.shape[0], pixels.shape[1]), size)
        if canvas == size:
            return self._padded(pixels, size)
        if _is_pillows(self.spec):
            return _padded_by_pillow(pixels, canvas, size, self.spec)
        check_scalable(source, canvas)
        frame = av.VideoFrame.from_ndarray(self._padded(pixels, canvas), _FORMATS[self.spec.layout])
        return self._resized(frame, size, entire(size))

    def _resized(self, frame: av.VideoFrame, size: tuple[int, int], middle: Middle) -> Array:
        """Return the `middle` of the frame at `size` (height, width)."""
        check_scalable((frame.height, frame.width), size)
        by_area = self.spec.resize == "area"
        height, width = size if by_area else (frame.height, frame.width)
        out = self.reduced(frame, (height, width), _FORMATS[self.spec.layout])
        rows = plane_rows(out, 0)
        pixels = rows.reshape(height, width, 3) if self.spec.layout == "rgb" else rows
        if by_area or pixels.shape[:2] == size:
            return middle.cut(pixels)
        return filtered(pixels, size, middle, self.spec)

    def reduced(self, frame: av.VideoFrame, size: tuple[int, int], layout: str) -> av.VideoFrame:
        """Return a frame at `size` (height, width) in the pixel format `layout`. Raises MediaError."""
        height, width = size
        shrinks = height < frame.height or width < frame.width
        if layout == _FORMATS["gray"]:
            matrix = BT601  # swscale's default: with another matrix it converts YCbCr to RGB, and that to gray
        else:
            matrix, frame = colour_matrix(frame), self._siting.settled(frame)
        try:
            return self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format=layout,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                interpolation=_SHRINKING if shrinks else _GROWING,
                threads=1,
            )
        except (av.error.ArgumentError, av.error.PatchWelcomeError) as error:
            what = _not_scalable((frame.height, frame.width), size)
            raise MediaError(what, "choose another size in the pipeline") from error

    @staticmethod
    def is_planar(frame: av.VideoFrame) -> bool:
        """Return whether a frame is YCbCr 4:2:0 in 8 bits."""
        return frame.format.name in ("yuv420p", "yuvj420p")


def _opacity(frame: av.VideoFrame) -> Array:
    """How opaque each pixel is, `[H, W]` uint8."""
    if frame.format.name != "rgba":
        return np.full((frame.height, frame.width), 255, np.uint8)
    return plane_rows(frame, 0).reshape(frame.height, frame.width, 4)[..., 3]


def filtered(pixels: Array, size: tuple[int, int], middle: Middle, spec: PictureSpec) -> Array:
    """Resize `[H, W(, C)]` uint8 to `size` (height, width) by the filter of `spec.resize`, and return the `middle`.

    Without antialias, a filter uses the nearest pixels however much a side shrinks, as in OpenCV and PyTorch:
    `bilinear_resize`, which computes only the middle, and `bicubic_resize`. The others, and nearest, are Pillow's, in
    fixed point, which gives the same bytes on every machine.
    """
    if _is_pillows(spec):
        return middle.cut(_by_pillow(pixels, size, spec))
    if spec.resize == "bilinear":
        return bilinear_resize(pixels, size, middle)
    return middle.cut(bicubic_resize(pixels, size))


def _is_pillows(spec: PictureSpec) -> bool:
    return spec.resize in ("nearest", "lanczos") or (spec.resize in _PILLOW and spec.antialias)


def _by_pillow(pixels: Array, size: tuple[int, int], spec: PictureSpec) -> Array:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size[::-1], _PILLOW[spec.resize]))


def _padded_by_pillow(pixels: Array, canvas: tuple[int, int], size: tuple[int, int], spec: PictureSpec) -> Array:
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


def check_scalable(source: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ItemTooLarge if a picture of `source` (height, width) would have too many pixels at `size`."""
    if size[0] * size[1] > _MOST_PIXELS:
        raise ItemTooLarge(_not_scalable(source, size), 'use `fit = "letterbox"`')


def _not_scalable(source: tuple[int, int], size: tuple[int, int]) -> str:
    return f"a picture of {source[1]}x{source[0]} cannot be scaled to {size[1]}x{size[0]}"


def _multiple(pixels: Array, spec: PictureSpec) -> Array:
    """Pad right and below until both sides are multiples of `spec.multiple`."""
    height, width = (-(-side // spec.multiple) * spec.multiple for side in pixels.shape[:2])
    return padded(pixels, (height, width), (0, 0), spec.pad_value)
