"""What a frame's numbers mean: by which matrix YCbCr is read, in which range, and in which format planes are delivered.

Where a file names no matrix, pictures below 720 lines are BT.601 and those from there on BT.709, as players have it.
FFmpeg reads gray as full range; so does rigflow where a file names no range.
"""

import re
from functools import lru_cache

import av
from av.video.format import VideoFormat

# FFmpeg's numbers: AVColorSpace, AVColorRange, AVColorTransferCharacteristic
BT709, BT601, SMPTE170M = 1, 5, 6  # the last two are one matrix
LIMITED, FULL = 1, 2
HDR = {16: "PQ", 18: "HLG"}
UNNAMED = (0, 2, 3)  # RGB, unspecified, reserved: none of them is a matrix of YCbCr
_SWSCALE = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}  # what swscale reads each matrix by
_HD_LINES = 720
_PLANAR = re.compile(r"yuvj?4(20|22|44)p|gray")
_HALVED_ACROSS = re.compile(r"yuvj?422p")
_DEEP = re.compile(r"(yuv4(?:20|22|44)p|gray)(9|1\d)(le|be)")
_FIVE_BITS = re.compile(r"((?:rgb|bgr)5[56]5)[lb]e")
_TAKEN_APART = {**dict.fromkeys(("yuyv422", "uyvy422", "yvyu422"), "yuv422p"), "nv24": "yuv444p", "nv42": "yuv444p"}
_FULL_PREFIX = "yuvj"  # FFmpeg's old names for 8-bit YCbCr of full range


def source_matrix(named: int, height: int) -> int:
    """The matrix that a file names, or else the one that is the custom for pictures of `height` lines."""
    if named not in UNNAMED:
        return named
    return BT709 if height >= _HD_LINES else SMPTE170M


def colour_matrix(frame: av.VideoFrame) -> int:
    """Number of the matrix to read `frame` by, one of those that swscale knows."""
    named = int(frame.colorspace)
    return _SWSCALE.get(named) or _SWSCALE[source_matrix(UNNAMED[0], frame.height)]


def plane_format(name: str, transposed: bool = False) -> str:
    """The 8-bit pixel format of the planes that `layout = "planes"` delivers for video of format `name`.

    4:2:0, 4:2:2, 4:4:4 and gray stay as they are, deeper ones lose their low bits; all else becomes 4:2:0. So does
    4:2:2 that is `transposed` to be upright: it would be 4:4:0, which encoders do not take.
    """
    if transposed and _HALVED_ACROSS.match(name):
        return "yuvj420p" if name.startswith(_FULL_PREFIX) else "yuv420p"
    if _PLANAR.fullmatch(name):
        return name
    deep = _DEEP.fullmatch(name)
    if deep:
        return deep.group(1)
    return "yuvj420p" if name.startswith(_FULL_PREFIX) else "yuv420p"


@lru_cache(maxsize=64)
def frame_formats(name: str) -> tuple[str, ...]:
    """The pixel formats that frames of format `name` take, one after the other, before they are scaled.

    Palettes have no pixels to scale. Of packed 4:2:2 and NV24 of an odd side swscale makes 4:2:0 of which some is not
    written, unless their planes are taken apart first. Of 5 bits a colour it makes at most 248 of 255, unless it makes
    rgb24 at the same size, and of those that are big-endian it makes nonsense then.
    """
    if VideoFormat(name).has_palette:
        return ("rgb24",)
    if name in _TAKEN_APART:
        return (_TAKEN_APART[name],)
    five = _FIVE_BITS.fullmatch(name)
    return (five.group(1) + "le", "rgb24") if five else (name,)


def plane_range(name: str, named: int) -> int:
    """AVColorRange of the planes that `plane_format` names, of video of format `name` that names the range `named`."""
    if name.startswith(_FULL_PREFIX):
        return FULL
    if plane_format(name).startswith("gray"):
        return named or FULL
    return named if is_ycbcr(name) else LIMITED


def is_ycbcr(name: str) -> bool:
    """Whether a pixel format is of luma and chroma; others are RGB, XYZ, gray or a palette: full range to swscale."""
    layout = VideoFormat(name)
    colours = [component for component in layout.components if not component.is_alpha]
    return len(colours) == 3 and not layout.is_rgb and not name.startswith("xyz")


def has_alpha(name: str) -> bool:
    """Whether a pixel format has an alpha channel; FFmpeg says so of every palette, which seldom has one."""
    layout = VideoFormat(name)
    return not layout.has_palette and any(component.is_alpha for component in layout.components)


def what_changes(name: str, other: str) -> str:
    """What a conversion from one pixel format to another, of 8 bits, does to colours, in words; empty for nothing."""
    ours, theirs = VideoFormat(name), VideoFormat(other)
    depth = max(component.bits for component in ours.components)
    words = [f"{depth} bits become 8"] if depth > 8 and not ours.has_palette else []
    if len(ours.components) < 3 and not ours.has_palette:  # gray
        return ", ".join(words)
    from_rgb = is_ycbcr(other) and not is_ycbcr(name)
    if from_rgb:
        words.append("RGB becomes luma and colour difference")
    before = (64, 64) if from_rgb else (ours.chroma_width(64), ours.chroma_height(64))
    after = theirs.chroma_width(64), theirs.chroma_height(64)
    if is_ycbcr(other) and after != before:
        less = after[0] <= before[0] and after[1] <= before[1]
        words.append("colours have half the resolution" if less else "colours are scaled to another resolution")
    return ", ".join(words)
