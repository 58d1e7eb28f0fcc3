"""Describes pictures in a GPU's memory, and the position of a scaled picture in its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np

from engines.cuda.burst_frame import BurstFrame
from engines.cuda.kernels import PLANE
from engines.cuda.kinds import Kind
from engines.media.orientation import steps_of, transposes

SURFACES = {"nv12": (8, 0), "p010le": (10, 6), "p016le": (12, 4)}  # of NVDEC: bits a sample, unused low bits
FULL = 2  # AVColorRange
_PLANE_THREADS = 128


class Layout(NamedTuple):
    """How planes lie in a GPU's memory: chroma samples are `step` apart, `bits` above `low_bits` unused ones."""

    height: int
    width: int
    pitches: tuple[int, int]
    chroma: tuple[int, int]  # height, width
    step: int
    bits: int
    low_bits: int
    left: bool  # chroma samples are at the left one of two pixels


class Picture(NamedTuple):
    """A frame's planes Y, Cb and Cr in the GPU's memory."""

    layout: Layout
    pointers: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """The part of a `scaled` picture that is computed (`size` from `first` on) and its target (`begin`, `strides`).

    All as (height, width), strides in bytes; `padded`: it does not fill its row.
    """

    scaled: tuple[int, int]
    first: tuple[int, int]
    size: tuple[int, int]
    begin: int
    strides: tuple[int, int]
    padded: bool

    def into(self, given: Any) -> None:
        """Fill the fields of a kernel's struct."""
        given["top"], given["left"] = self.first
        given["height"], given["width"] = self.size
        given["stride_y"], given["stride_x"] = self.strides


def entire_picture(size: tuple[int, int], pixel_bytes: int) -> Place:
    """Return the place of a whole picture at its own size."""
    return Place(size, (0, 0), size, 0, (size[1] * pixel_bytes, pixel_bytes), False)


def upright_strides(size: tuple[int, int], orientation: int, pixel_bytes: int, line: int = 0) -> tuple[int, int, int]:
    """Return the offset of a stored picture's first pixel in the upright picture, and the steps down and right, in
    bytes.

    `line`: bytes of a line of the target; 0: that of the upright picture.
    """
    height, width = size
    line = line or (height if transposes(orientation) else width) * pixel_bytes
    mirrored, turns = steps_of(orientation)
    begin, down, right = (
        (0, line, pixel_bytes),
        ((width - 1) * line, pixel_bytes, -line),
        ((height - 1) * line + (width - 1) * pixel_bytes, -line, -pixel_bytes),
        ((height - 1) * pixel_bytes, -pixel_bytes, line),
    )[turns]
    return (begin + (width - 1) * right, down, -right) if mirrored else (begin, down, right)


def name_on_gpu(frame: av.VideoFrame | BurstFrame) -> str:
    """Return the pixel format of a frame of the GPU's decoder."""
    assert frame.sw_format is not None
    return frame.sw_format.name


def surface(frame: av.VideoFrame | BurstFrame) -> Picture:
    """Return a decoder's frame as a picture, without a copy."""
    if isinstance(frame, BurstFrame):
        return _picture(frame, *frame.in_memory())
    planes = frame.planes  # each look at it makes new objects
    luma, chroma = planes[0], planes[1]
    return _picture(frame, (luma.buffer_ptr, chroma.buffer_ptr), (luma.line_size, chroma.line_size))


def _picture(frame: av.VideoFrame | BurstFrame, pointers: Sequence[int], pitches: Sequence[int]) -> Picture:
    found = _surface_layout(
        name_on_gpu(frame), frame.height, frame.width, pitches[0], pitches[1], int(frame.color_range) == FULL
    )
    luma, blue = pointers[0], pointers[1]
    return Picture(found, (luma, blue, blue + (1 if found.bits == 8 else 2)))


@lru_cache(maxsize=64)
def _surface_layout(name: str, height: int, width: int, luma_pitch: int, chroma_pitch: int, full: bool) -> Layout:
    bits, low_bits = SURFACES[name]
    half = -(-height // 2), -(-width // 2)
    # FFmpeg calls 8-bit full range yuvj420p, for which `engines.transforms` assumes the siting of JPEG
    return Layout(height, width, (luma_pitch, chroma_pitch), half, 2, bits, low_bits, bits > 8 or not full)


def plane_kinds(layout: Layout, orientation: int) -> list[tuple[Kind, tuple[int, int], int]]:
    """Return of each plane the kernel, the shape of its row, and where in that it begins."""
    kinds = []
    for number, (height, width) in enumerate(((layout.height, layout.width), layout.chroma, layout.chroma)):
        shape = (width, height) if transposes(orientation) else (height, width)
        begin, stride_y, stride_x = upright_strides((height, width), orientation, 1)
        given = np.zeros((), PLANE)
        given["pitch"], given["step"] = layout.pitches[number > 0], layout.step if number else 1
        given["deep"], given["drop"] = layout.bits > 8, layout.bits + layout.low_bits - 8
        given["width"], given["height"] = width, height
        given["stride_x"], given["stride_y"] = stride_x, stride_y
        grid = -(-width // _PLANE_THREADS), height
        kinds.append((Kind("plane", given, grid, (_PLANE_THREADS, 1, 1), 2), shape, begin))
    return kinds
