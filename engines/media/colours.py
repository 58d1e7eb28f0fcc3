"""Chooses the YCbCr matrix, the range and the plane format of a frame.

If a file names no matrix, pictures of fewer than 720 lines use BT.601 and all others BT.709, as players do. FFmpeg
reads gray as full range; rigflow does the same if a file names no range.
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
_SWSCALE = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}  # the matrix by which swscale reads each one
_HD_LINES = 720
_PLANAR = re.compile(r"yuvj?4(20|22|44)p|gray")
_HALVED_ACROSS = re.compile(r"yuvj?422p")
_DEEP = re.compile(r"(yuv4(?:20|22|44)p|gray)(9|1\d)(le|be)")
_SHIFTED = re.compile(r"p([024])(1[02][lb]e)")  # two planes, whose samples lie in the upper bits of 16
_FIVE_BITS = re.compile(r"((?:rgb|bgr)5[56]5)[lb]e")
_TAKEN_APART = {**dict.fromkeys(("yuyv422", "uyvy422", "yvyu422"), "yuv422p"), "nv24": "yuv444p", "nv42": "yuv444p"}
_FULL_PREFIX = "yuvj"  # FFmpeg's old names for 8-bit YCbCr of full range


def source_matrix(named: int, height: int) -> int:
    """Return the matrix that a file names, or else the usual one for pictures of `height` lines."""
    if named not in UNNAMED:
        return named
    return BT709 if height >= _HD_LINES else SMPTE170M


def colour_matrix(frame: av.VideoFrame) -> int:
    """Return the number of the matrix that decodes `frame`; it is one that swscale knows."""
    named = int(frame.colorspace)
    return _SWSCALE.get(named) or _SWSCALE[source_matrix(UNNAMED[0], frame.height)]


def plane_format(name: str, transposed: bool = False) -> str:
    """Return the 8-bit pixel format of the planes that `layout = "planes"` delivers for video of format `name`.

    4:2:0, 4:2:2, 4:4:4 and gray stay as they are, and deeper formats lose their low bits. All others become 4:2:0.
    4:2:2 that is `transposed` also becomes 4:2:0: it would be 4:4:0, which encoders do not accept.
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
    """Return the pixel formats that frames of format `name` are converted to, one after the other, before scaling.

    A palette has no pixels that can be scaled. From packed 4:2:2 and from NV24 with an odd side, swscale leaves some
    pixels of its 4:2:0 output unwritten, unless the planes are separated first. In gray of P010 and the like, of full
    range, it misreads the samples of the last columns. From 5 bits a colour it reaches at most 248 of 255, unless it
    makes rgb24 at the same size; its output for big-endian ones is wrong even then.
    """
    if VideoFormat(name).has_palette:
        return ("rgb24",)
    if name in _TAKEN_APART:
        return (_TAKEN_APART[name],)
    if shifted := _SHIFTED.fullmatch(name):
        return (f"yuv4{shifted.group(1) * 2 if shifted.group(1) != '0' else '20'}p{shifted.group(2)}",)
    five = _FIVE_BITS.fullmatch(name)
    return (five.group(1) + "le", "rgb24") if five else (name,)


def plane_range(name: str, named: int) -> int:
    """Return the AVColorRange of the planes of `plane_format` for video of format `name` and stated range `named`."""
    if name.startswith(_FULL_PREFIX):
        return FULL
    if plane_format(name).startswith("gray"):
        return named or FULL
    return named if is_ycbcr(name) else LIMITED


def is_ycbcr(name: str) -> bool:
    """Return whether a pixel format has luma and chroma. RGB, XYZ, gray and palettes have none: swscale: full range."""
    layout = VideoFormat(name)
    colours = [component for component in layout.components if not component.is_alpha]
    return len(colours) == 3 and not layout.is_rgb and not name.startswith("xyz")


def has_alpha(name: str) -> bool:
    """Return whether a pixel format has an alpha channel; FFmpeg reports one for every palette, but few have it."""
    layout = VideoFormat(name)
    return not layout.has_palette and any(component.is_alpha for component in layout.components)


def what_changes(name: str, other: str) -> str:
    """Describe the effect of a conversion to another pixel format of 8 bits on colours; empty for none."""
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
