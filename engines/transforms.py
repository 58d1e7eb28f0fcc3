"""Frames to arrays on the CPU, by swscale: the reference that every other device's transforms are held against.

Resizing averages areas where a side shrinks and is bicubic where both grow; `resize = "bilinear"` looks at two pixels
a side instead, as PyTorch does. Rounding is the accurate, bit-exact kind, so that machines with different vector units
give the same bytes. YCbCr is read by the matrix the frame names; where it names none, BT.601 below 720 lines and BT.709
from there on, as players do.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.frames import blank_frame, no_frames, plane_rows, stack_frames, unpack_frames
from engines.part import Array, Part
from schemas.errors import ItemTooLarge, MediaError
from schemas.pipeline import PreprocessStage

if TYPE_CHECKING:
    from engines.device import Preprocessing

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_BT709, _BT601 = 1, 5
_MATRICES = (1, 4, 5, 6, 7, 9)  # those of AVColorSpace that swscale reads YCbCr by
_HD_LINES = 720
_MOST_PIXELS = 100_000_000
_ONE = 1 << 11  # a bilinear weight of 1; two of them and a pixel fit into 31 bits
_FORMATS = {"rgb": "rgb24", "gray": "gray"}
_PLANAR = re.compile(r"yuvj?4\d\dp|gray")
_DEEP = re.compile(r"(yuv4\d\dp|gray)(9|1\d)(le|be)")


class Preprocess:
    """A preprocess stage's conversion of single frames. Not thread-safe: one instance a thread."""

    def __init__(self, stage: PreprocessStage) -> None:
        self.stage = stage
        self._reformatter = VideoReformatter()
        self._siting = _Siting()

    def convert(self, frame: av.VideoFrame, rotation: int = 0) -> dict[str, Array]:
        """Arrays of one frame, uint8 and contiguous, turned upright by `rotation` degrees counterclockwise.

        `rgb`: `pixels [H, W, 3]`; `gray`: `pixels [H, W]`, full range; `planes`: `plane0 [H, W]`, `plane1 [H', W']` ...
        in 8 bits, see `plane_format`. Raises ItemTooLarge and MediaError for shapes that can not be scaled.
        """
        turns = round(rotation / 90) % 4
        if self.stage.size is None:
            planes = self._planes(frame)
            return {f"plane{i}": _turned(plane, turns) for i, plane in enumerate(planes)}
        return {"pixels": self._pixels(frame, self.stage.size, turns)}

    def settle(self) -> None:
        """Nothing to wait for."""

    def _planes(self, frame: av.VideoFrame) -> list[Array]:
        layout = plane_format(frame.format.name)
        if frame.format.name != layout:
            frame = self._reformatter.reformat(
                frame, format=layout, interpolation=Interpolation.BICUBIC | EXACT, threads=1
            )
        rows = [plane_rows(frame, number) for number in range(len(frame.planes))]
        if layout in ("rgb24", "rgba"):
            pixels = rows[0].reshape(frame.height, frame.width, len(layout.rstrip("24")))
            return [pixels[..., channel] for channel in range(pixels.shape[-1])]
        return rows

    def _pixels(self, frame: av.VideoFrame, size: tuple[int, int], turns: int) -> Array:
        """The frame at `size` (height, width): scaled before it is turned, for that moves the fewest bytes."""
        target = size[::-1] if turns % 2 else size
        scaled = scaled_size((frame.height, frame.width), target, self.stage.fit)
        pixels = self._resized(frame, scaled, target)
        if pixels.shape[:2] != target:
            pixels = _cropped(pixels, target) if self.stage.fit == "crop" else _padded(pixels, target)
        return _turned(pixels, turns)

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
                interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | EXACT,
                threads=1,
            )
        except (av.error.ArgumentError, av.error.PatchWelcomeError) as error:
            what = _not_scalable((frame.height, frame.width), size)
            raise MediaError(what, "its shape is out of proportion to the pipeline's size") from error

    @staticmethod
    def is_planar(frame: av.VideoFrame) -> bool:
        """Whether a frame is YCbCr with halved chroma, 8 bits deep."""
        return frame.format.name in ("yuv420p", "yuvj420p")


class _Siting:
    """Says where a frame's chroma samples lie: at the left, in the middle for JPEG.

    Swscale minds what a frame says of that, containers forget it, and PyAV shows it to nobody, so that a frame that was
    carried to another process would come out a little different. Passing a filter is the way to set it (3 us).
    """

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None
        self._graph = Graph()

    def settled(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same picture, not copied, with its siting set."""
        shape = frame.width, frame.height, frame.format.name
        if shape != self._shape:
            self._shape, self._graph = shape, self._build(*shape)
        self._graph.push(frame)
        settled = self._graph.pull()
        assert isinstance(settled, av.VideoFrame)
        return settled

    @staticmethod
    def _build(width: int, height: int, layout: str) -> Graph:
        graph = Graph()
        location = "center" if layout.startswith("yuvj") else "left"
        source = graph.add_buffer(width=width, height=height, format=VideoFormat(layout), time_base=Fraction(1))
        graph.link_nodes(source, graph.add("setparams", f"chroma_location={location}"), graph.add("buffersink"))
        graph.configure()
        return graph


def preprocess_part(part: Part, pre: "Preprocessing") -> Part:
    """A part of raw frames as the part of arrays that converting while decoding would have made."""
    rows = [pre.convert(frame, rotation) for frame, rotation in unpack_frames(part)]
    arrays = stack_frames(rows) if rows else no_frames(pre.convert(blank_frame(part.meta.media.kind)))
    pre.settle()
    return part.with_arrays({**arrays, "index": part.arrays["index"]})


def plane_format(name: str) -> str:
    """The 8-bit pixel format whose planes `layout = "planes"` delivers for frames of format `name`.

    Planar YCbCr and gray stay as they are, deeper ones lose their low bits, packed RGB becomes planes R, G, B (and A);
    all else becomes `yuv420p`.
    """
    if _PLANAR.fullmatch(name) or name in ("rgb24", "rgba"):
        return name
    deep = _DEEP.fullmatch(name)
    return deep.group(1) if deep else "yuv420p"


def colour_matrix(frame: av.VideoFrame) -> int:
    """Number of the YCbCr matrix to read `frame` by: its own, or the one that players take for its size."""
    named = int(frame.colorspace)
    if named in _MATRICES:
        return named
    return _BT709 if frame.height >= _HD_LINES else _BT601


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


def _turned(pixels: Array, turns: int) -> Array:
    return np.ascontiguousarray(np.rot90(pixels, turns) if turns else pixels)
