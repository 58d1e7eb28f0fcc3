"""Turns and mirrors stored pictures until they are upright, by EXIF's numbers 1 (unchanged) to 8.

Files state the orientation as a display matrix (mp4, mov, matroska) or as EXIF (jpeg, png, webp). FFmpeg gives both as
the matrix.
"""

from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from engines.media.filters import FrameFilter
from engines.part import Array

UPRIGHT = 1
MOST = 8
_EXIF = 31  # AVFrameSideDataType
# by EXIF's number: whether left and right are swapped first, then quarter turns counterclockwise
_STEPS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}


def orientation_of(frame: av.VideoFrame) -> int:
    """Return the orientation that a frame's file states; for any other angle, the nearest one.

    A display matrix takes the pixel at `(x, y)` to `(a x + c y, b x + d y)`; see ISO/IEC 14496-12, 6.2.2.
    """
    try:
        kinds = frame.side_data
    except ValueError:  # PyAV 18 has no name for EXIF data, and refuses all side data of a frame that has some
        kinds = FrameFilter(("sidedata", f"mode=delete:type={_EXIF}"))(frame).side_data
    if "DISPLAYMATRIX" not in kinds:
        return UPRIGHT
    matrix = cast(SideDataContainer, kinds)["DISPLAYMATRIX"]
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[a < 0, d < 0]
    return {(False, False): 5, (True, False): 6, (True, True): 7, (False, True): 8}[c < 0, b < 0]


def transposes(orientation: int) -> bool:
    """Return whether rows become columns."""
    return orientation > 4


def steps_of(orientation: int) -> tuple[bool, int]:
    """Return whether left and right are swapped first, and the quarter turns counterclockwise after that."""
    return _STEPS[orientation]


def reverses(orientation: int) -> tuple[bool, bool]:
    """Return whether the stored rows, and the stored columns, are seen in reversed order."""
    mirrored, turns = _STEPS[orientation]
    return turns in (2, 3), mirrored != (turns in (1, 2))


def upright(pixels: Array, orientation: int) -> Array:
    """Turn and mirror `[H, W, ...]`; the result is contiguous."""
    mirrored, turns = _STEPS[orientation]
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, turns) if turns else pixels)
