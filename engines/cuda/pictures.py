"""Describes pictures in a GPU's memory, and the position of a scaled picture in its row."""

from dataclasses import dataclass
from typing import Any

import av

from engines.media.orientation import steps_of, transposes

SURFACES = {"nv12": (8, 0), "p010le": (10, 6), "p016le": (12, 4)}  # of NVDEC: bits a sample, unused low bits
FULL = 2  # AVColorRange


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame's planes in the GPU's memory: Y, Cb and Cr, `step` samples apart, `bits` above `low_bits` unused ones."""

    height: int
    width: int
    pointers: tuple[int, int, int]
    pitches: tuple[int, int]
    chroma: tuple[int, int]  # height, width
    step: int
    bits: int
    low_bits: int
    left: bool  # chroma samples are at the left one of two pixels

    @property
    def kind(self) -> tuple[Any, ...]:
        """The properties that pictures share if the same filters fit them."""
        return self.height, self.width, self.chroma, self.step, self.bits, self.low_bits, self.left


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


def name_on_gpu(frame: av.VideoFrame) -> str:
    """Return the pixel format of a frame of the GPU's decoder."""
    assert frame.sw_format is not None
    return frame.sw_format.name


def surface(frame: av.VideoFrame) -> Picture:
    """Return a decoder's frame as a picture, without a copy."""
    bits, low_bits = SURFACES[name_on_gpu(frame)]
    luma, chroma = frame.planes[:2]
    sample = 1 if bits == 8 else 2
    pointers = (luma.buffer_ptr, chroma.buffer_ptr, chroma.buffer_ptr + sample)
    half = -(-frame.height // 2), -(-frame.width // 2)
    pitches = luma.line_size, chroma.line_size
    # FFmpeg calls 8-bit full range yuvj420p, for which `engines.transforms` assumes the siting of JPEG
    left = bits > 8 or int(frame.color_range) != FULL
    return Picture(frame.height, frame.width, pointers, pitches, half, 2, bits, low_bits, left)
