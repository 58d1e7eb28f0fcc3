"""Frames to arrays on the CPU, by swscale: the reference that every other device's transforms are held against.

Resizing averages areas where a side shrinks and is bicubic where both grow; `resize = "bilinear"` looks at two pixels
a side instead, as PyTorch does. Rounding is the accurate, bit-exact kind, so that machines with different vector units
give the same bytes. What colours mean is said in `engines.media.colours`.
"""

from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.colours import colour_matrix, plane_format
from engines.media.frames import blank_frame, no_frames, plane_rows, stack_frames, unpack_frames
from engines.media.orientation import UPRIGHT, transposes, upright
from engines.media.reshape import EXACT, Reshape, Siting
from engines.part import Array, Part, Tick, no_tick
from engines.ports import Preprocessing
from schemas.errors import ItemTooLarge, MediaError
from schemas.pipeline import PreprocessStage

_SHRINKING, _GROWING = Interpolation.AREA | EXACT, Interpolation.BICUBIC | EXACT
_MOST_PIXELS = 100_000_000
_ONE = 1 << 11  # a bilinear weight of 1; two of them and a pixel fit into 31 bits
_FORMATS = {"rgb": "rgb24", "gray": "gray"}
_IMAGES = {"rgb24": 3, "rgba": 4}  # what images are decoded to for planes, and its channels


class Preprocess:
    """A preprocess stage's conversion of single frames. Not thread-safe: one instance a thread."""

    def __init__(self, stage: PreprocessStage) -> None:
        self.stage = stage
        self._reformatter = VideoReformatter()
        self._siting = Siting()
        self._reshape = Reshape()

    def convert(self, frame: av.VideoFrame, orientation: int = UPRIGHT) -> dict[str, Array]:
        """Arrays of one frame, uint8 and contiguous, upright; `orientation` is EXIF's, from 1 to 8.

        `rgb`: `pixels [H, W, 3]`; `gray`: `pixels [H, W]`, full range; `planes`: `plane0 [H, W]`, `plane1 [H', W']` ...
        in 8 bits, see `plane_format`; of frames in rgb24 and rgba R, G, B (and A), for that is how images come. Raises
        ItemTooLarge and MediaError for shapes that can not be scaled.
        """
        if self.stage.size is None:
            planes = self._planes(frame)
            return {f"plane{i}": upright(plane, orientation) for i, plane in enumerate(planes)}
        return {"pixels": self._pixels(frame, self.stage.size, orientation)}

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def _planes(self, frame: av.VideoFrame) -> list[Array]:
        channels = _IMAGES.get(frame.format.name)
        if channels:
            pixels = plane_rows(frame, 0).reshape(frame.height, frame.width, channels)
            return [pixels[..., channel] for channel in range(channels)]
        frame = self._reshape(frame, plane_format(frame.format.name), (frame.height, frame.width))
        return [plane_rows(frame, number) for number in range(len(frame.planes))]

    def _pixels(self, frame: av.VideoFrame, size: tuple[int, int], orientation: int) -> Array:
        """The frame at `size` (height, width): scaled before it is turned, for that moves the fewest bytes."""
        target = size[::-1] if transposes(orientation) else size
        scaled = scaled_size((frame.height, frame.width), target, self.stage.fit)
        pixels = self._resized(frame, scaled, target)
        if pixels.shape[:2] != target:
            pixels = _cropped(pixels, target) if self.stage.fit == "crop" else _padded(pixels, target)
        return upright(pixels, orientation)

    def _resized(self, frame: av.VideoFrame, size: tuple[int, int], most: tuple[int, int]) -> Array:
        """The frame at `size`, or already the middle of it where only `most` (height, width) is wanted."""
        check_scalable((frame.height, frame.width), size)
        bilinear = self.stage.resize == "bilinear"
        height, width = (frame.height, frame.width) if bilinear else size
        out = self.reduced(frame, (height, width), _FORMATS[self.stage.layout])
        rows = plane_rows(out, 0)
        pixels = rows.reshape(height, width, 3) if self.stage.layout == "rgb" else rows
        return bilinear_resize(pixels, size, most) if bilinear else pixels

    def reduced(self, frame: av.VideoFrame, size: tuple[int, int], layout: str) -> av.VideoFrame:
        """A frame at `size` (height, width) in pixel format `layout`. Raises MediaError."""
        height, width = size
        shrinks = height < frame.height or width < frame.width
        matrix = colour_matrix(frame)
        if layout != _FORMATS["gray"]:
            frame = self._siting.settled(frame)
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
            raise MediaError(what, "its shape is out of proportion to the pipeline's size") from error

    @staticmethod
    def is_planar(frame: av.VideoFrame) -> bool:
        """Whether a frame is YCbCr with halved chroma, 8 bits deep."""
        return frame.format.name in ("yuv420p", "yuvj420p")


def preprocess_part(part: Part, pre: Preprocessing, tick: Tick = no_tick) -> Part:
    """A part of raw frames as the part of arrays that converting while decoding would have made."""
    rows = []
    for frame, orientation in unpack_frames(part):
        rows.append(pre.convert(frame, orientation))
        tick()
    arrays = stack_frames(rows) if rows else no_frames(pre.convert(blank_frame(part.meta.media.kind)))
    pre.synchronize()
    return part.with_arrays({**arrays, "index": part.arrays["index"]})


def bilinear_resize(pixels: Array, size: tuple[int, int], most: tuple[int, int]) -> Array:
    """`[H, W(, C)] uint8` at `size` (height, width), each pixel from the two nearest a side however much it shrinks.

    Of what is larger than `most` only the middle is computed.

    This is what PyTorch's `interpolate(mode="bilinear", align_corners=False)` computes, in fixed point: weights have
    11 bits, the result is rounded to nearest. Every device that keeps to that gives the same bytes.
    """
    (top, bottom, down), (left, right, across) = (
        bilinear_taps(length, to, min(to, kept)) for length, to, kept in zip(pixels.shape, size, most, strict=False)
    )
    colours = (1,) * (pixels.ndim - 2)
    down, across = down.reshape(-1, 1, *colours), across.reshape(-1, *colours)
    rows = [pixels[top], pixels[bottom]]
    upper, lower = (row[:, left] * (_ONE - across) + row[:, right] * across for row in rows)
    return np.asarray((upper * (_ONE - down) + lower * down + _ONE * _ONE // 2) >> 22, np.uint8)


@lru_cache(maxsize=64)
def bilinear_taps(length: int, to: int, kept: int) -> tuple[Array, Array, Array]:
    """For each of the middle `kept` of `to` pixels along a side of `length`: its two neighbours, and the weight of the
    second, of 2048.

    Pixel `i` of `to` lies at `(i + 1/2) length / to - 1/2`, and not before 0.
    """
    pixel = cropped_from(to, kept) + np.arange(kept)
    place = np.maximum((2 * pixel + 1) * length - to, 0)  # in units of 1 / (2 to)
    first, rest = np.divmod(place, 2 * to)
    weight = (rest * _ONE + to) // (2 * to)
    return first, np.minimum(first + 1, length - 1), weight.astype(np.int32)


def scaled_size(source: tuple[int, int], target: tuple[int, int], fit: str) -> tuple[int, int]:
    """Size to scale `source` to before cropping or padding to `target`, in integer arithmetic.

    The side that `target` does not fix is rounded to nearest for `pad`; for `crop` it is rounded down, as in the
    evaluation transforms that video models were trained with.
    """
    if fit == "stretch":
        return target
    (height, width), (to_height, to_width) = source, target
    by_width = to_width * height >= to_height * width if fit == "crop" else to_width * height <= to_height * width
    half = 1 if fit == "pad" else 0
    if by_width:
        return max(1, (2 * height * to_width + half * width) // (2 * width)), to_width
    return to_height, max(1, (2 * width * to_height + half * height) // (2 * height))


def cropped_from(side: int, kept: int) -> int:
    """Where the middle `kept` of `side` pixels begin; halves go to the even number, as in those transforms too."""
    return round((side - kept) / 2)


def check_scalable(source: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ItemTooLarge when a picture of `source` (height, width) would become too large at `size`."""
    if size[0] * size[1] > _MOST_PIXELS:
        raise ItemTooLarge(_not_scalable(source, size), 'use `fit = "pad"`')


def _not_scalable(source: tuple[int, int], size: tuple[int, int]) -> str:
    return f"a picture of {source[1]}x{source[0]} can not be scaled to {size[1]}x{size[0]}"


def _cropped(pixels: Array, size: tuple[int, int]) -> Array:
    top, left = cropped_from(pixels.shape[0], size[0]), cropped_from(pixels.shape[1], size[1])
    return pixels[top : top + size[0], left : left + size[1]]


def _padded(pixels: Array, size: tuple[int, int]) -> Array:
    canvas = np.zeros((*size, *pixels.shape[2:]), np.uint8)
    top, left = (size[0] - pixels.shape[0]) // 2, (size[1] - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
