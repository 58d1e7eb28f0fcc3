"""How a stored picture is turned and mirrored until it is upright, as EXIF counts it: 1 (as it is) to 8.

Files say it by a display matrix (mp4, mov, matroska) or by EXIF (jpeg, png, webp), and FFmpeg gives both as the matrix.
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
# by EXIF's number: whether left and right change places first, then quarter turns counterclockwise
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
    """The orientation that a frame's file asks for; the nearest one where it asks for another angle.

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
    """Whether rows become columns."""
    return orientation > 4


def steps_of(orientation: int) -> tuple[bool, int]:
    """Whether left and right change places first, and the quarter turns counterclockwise after that."""
    return _STEPS[orientation]


def upright(pixels: Array, orientation: int) -> Array:
    """`[H, W, ...]` turned and mirrored, contiguous."""
    mirrored, turns = _STEPS[orientation]
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, turns) if turns else pixels)
