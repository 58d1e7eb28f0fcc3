"""Clips of every pixel format, and what is to be seen in them: NumPy's arithmetic, without a line of rigflow's."""

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Real = NDArray[np.float64]

# Kr and Kb of ITU-T H.273 by AVColorSpace
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
WEIGHTS[9] = (0.2627, 0.0593)
LIMITED, FULL, UNSPECIFIED = 1, 2, 2
FRAMES = 3
# ISO/IEC 14496-12: a, b, c, d of the display matrix for each orientation of Exif 2.3, 4.6.4
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


@dataclass(frozen=True)
class Coloured:
    """A clip of one picture: `matrix` and `range` are what the file names, `codec` is lossless."""

    pixel_format: str
    codec: str = "ffv1"
    container: str = "mkv"
    size: tuple[int, int] = (96, 128)
    matrix: int = UNSPECIFIED
    range: int = 0
    orientation: int = 1
    aspect: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        height, width = self.size
        words = (self.pixel_format, self.codec, f"{width}x{height}", self.matrix, self.range, self.orientation)
        return "-".join(map(str, words)) + f".{self.container}"


def stored(size: tuple[int, int]) -> Picture:
    """The picture as it is stored, `[H, W, 3]`: smooth, without symmetry, with all three colours strong somewhere."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(*size, 128)
    red, green, blue = 40 + 170 * x, 60 + 150 * y, 220 - 150 * (x + y) / 2
    return np.asarray(np.stack([red, green, blue], axis=-1).round(), np.uint8)


def seen(orientation: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is to be seen of a stored picture."""
    a, b, c, d = MATRICES[orientation]
    pixels = pixels if a or d else pixels.swapaxes(0, 1)
    right, down = (a, d) if a else (c, b)
    return pixels[:: 1 if down > 0 else -1, :: 1 if right > 0 else -1]


def custom(matrix: int, height: int) -> int:
    """The matrix of a picture that may name none."""
    return (1 if height >= 720 else 5) if matrix in (0, UNSPECIFIED) else matrix  # 0 is that of RGB


def to_ycbcr(rgb: Real, matrix: int, full: bool) -> Real:
    """`[H, W, 3]` of 0 to 255 as Y, Cb, Cr in units of 8 bits; H.273, 8.3."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    span, black, wide = (255, 0, 255) if full else (219, 16, 224)
    return np.stack([black + span * luma, *(128 + wide * each for each in chroma)], axis=-1)


def to_rgb(ycbcr: Real, matrix: int, full: bool) -> Real:
    """The inverse of `to_ycbcr`."""
    kr, kb = WEIGHTS[matrix]
    span, black, wide = (255, 0, 255) if full else (219, 16, 224)
    luma = (ycbcr[..., 0] - black) / span
    blue = luma + (2 - 2 * kb) * (ycbcr[..., 1] - 128) / wide
    red = luma + (2 - 2 * kr) * (ycbcr[..., 2] - 128) / wide
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=-1) * 255, 0, 255)


def rgb_of_planes(planes: list[NDArray[np.uint8]], matrix: int, full: bool) -> Real:
    """`[H, W, 3]` of luma and chroma planes, `[H, W]` and `[H', W']`, chroma repeated; or of luma alone."""
    height, width = planes[0].shape
    if len(planes) == 1:
        planes = [*planes, *(np.full((1, 1), 128, np.uint8),) * 2]
    whole = [planes[0]]
    for plane in planes[1:]:
        rows = np.arange(height) * plane.shape[0] // height
        whole.append(plane[rows][:, np.arange(width) * plane.shape[1] // width])
    return to_rgb(np.stack(whole, axis=-1).astype(float), matrix, full)


def expected(clip: Coloured) -> Picture:
    """What is to be seen, `[H, W, 3]`."""
    pixels = stored(clip.size)
    if clip.pixel_format.startswith(("gray", "ya")):
        pixels = np.repeat(_gray(pixels)[..., None], 3, axis=-1)
    return seen(clip.orientation, pixels)


def make(folder: Path, clip: Coloured) -> Path:
    """Writes a clip into `folder` and gives its path."""
    path = folder / clip.name
    options = {"qp": "0", "preset": "ultrafast"} if clip.codec == "libx264" else {}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(clip.codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = clip.size
        stream.pix_fmt = clip.pixel_format
        stream.sample_aspect_ratio = Fraction(*clip.aspect)
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = clip.matrix, clip.range
        for number in range(FRAMES):
            frame = frame_of(clip)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.colorspace, frame.color_range = clip.matrix, clip.range
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    if clip.orientation != 1:
        orient(path, clip.orientation)
    return path


def frame_of(clip: Coloured) -> av.VideoFrame:
    """The stored picture in the clip's pixel format."""
    layout, pixels = av.VideoFormat(clip.pixel_format), stored(clip.size)
    name = clip.pixel_format
    if name.startswith(("gray", "ya")):
        return av.VideoFrame.from_ndarray(_gray(pixels), "gray").reformat(format=name)
    if layout.is_rgb or layout.has_palette or name.startswith("xyz"):
        return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=name)
    if not name.startswith("yuv") or not layout.is_planar or "msb" in name:
        return frame_of(replace(clip, pixel_format="yuv444p")).reformat(format=name)  # the same samples, packed
    full = clip.range == FULL or name.startswith("yuvj")
    ycbcr = to_ycbcr(pixels.astype(float), custom(clip.matrix, clip.size[0]), full)
    frame = av.VideoFrame(clip.size[1], clip.size[0], name)
    for number, plane in enumerate(frame.planes):
        values = ycbcr[..., number] if number < 3 else np.full(clip.size, 255.0)
        values = _sampled(values, (plane.height, plane.width), left=not name.startswith("yuvj"))
        bits = layout.components[0].bits
        kind = np.uint8 if bits == 8 else ">u2" if name.endswith("be") else "<u2"
        given = (values * (1 << bits - 8)).round().clip(0, (1 << bits) - 1).astype(kind)
        lines = np.zeros((plane.height, plane.line_size // given.itemsize), given.dtype)
        lines[:, : plane.width] = given
        plane.update(lines.tobytes())
    return frame


def _gray(pixels: Picture) -> Picture:
    return np.asarray((pixels @ np.array([0.299, 0.587, 0.114])).round(), np.uint8)


def _sampled(values: Real, size: tuple[int, int], left: bool) -> Real:
    """Averages of boxes, of which the border ones may be smaller; `left`: across, the first sample of each."""
    for axis, wanted in enumerate(size):
        step = -(-values.shape[axis] // wanted)
        if left and axis == 1:
            return values[:, ::step]
        starts = np.arange(0, values.shape[axis], step)
        counts = np.diff([*starts, values.shape[axis]])
        shape = (-1, 1) if axis == 0 else (1, -1)
        values = np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape)
    return values


def orient(path: Path, orientation: int) -> None:
    """Writes a display matrix into the only track header of a mov or mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in MATRICES[orientation])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
