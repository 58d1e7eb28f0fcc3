"""Raw frames on the queue between decode and preprocess, for rigs that run those two in different processes.

A frame travels as the bytes of its planes, `frame0` ... `frame3`, without the padding of its lines, and as
`frame_info`, which holds what else decides its conversion.
"""

import re
from collections.abc import Iterator, Sequence

import av
import numpy as np

from engines.media.orientation import MOST, UPRIGHT
from engines.media.stills import Decoded, as_frame
from engines.part import Array, Part
from schemas.errors import MediaError

_FORMAT_CHARS = 24
_PLANES = re.compile(r"frame[0-3]")
_MOST = 1 << 16  # pixels a side
_WHENCE = "a decode stage of rigflow sends no such part"


def pack_frame(picture: Decoded, orientation: int = UPRIGHT) -> dict[str, Array]:
    """One frame as `frame0 [n0]`, `frame1 [n1]` ... uint8, and `frame_info [29]` int32.

    The info is width, height, orientation, AVColorSpace, AVColorRange and the pixel format's name, a character each.
    """
    frame = as_frame(picture)
    planes = {f"frame{i}": plane_rows(frame, i).reshape(-1) for i in range(len(frame.planes))}
    name = frame.format.name.encode().ljust(_FORMAT_CHARS, b"\0")
    facts = (frame.width, frame.height, orientation, int(frame.colorspace), int(frame.color_range))
    return {**planes, "frame_info": np.array([*facts, *name], np.int32)}


def unpack_frames(part: Part) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield the frames that `pack_frame` packed, in order, with their orientation. Raises MediaError for other data."""
    facts = part.arrays.get("frame_info")
    if (
        not isinstance(facts, np.ndarray)
        or facts.dtype != np.int32
        or facts.ndim != 2
        or facts.shape[1] != 5 + _FORMAT_CHARS
    ):
        raise MediaError("a part in front of preprocess has no raw frames", _WHENCE)
    if "index" not in part.arrays:
        raise MediaError("a part of raw frames has no `index` of its windows", _WHENCE)
    left = [part.array(name).reshape(-1) for name in sorted(part.arrays) if _PLANES.fullmatch(name)]
    if any(plane.dtype != np.uint8 for plane in left):
        raise MediaError("the planes of a part's raw frames are not bytes", _WHENCE)
    for width, height, orientation, colorspace, color_range, *name in facts.tolist():
        frame = _blank(width, height, name, sum(map(len, left)))
        if not (UPRIGHT <= orientation <= MOST and 0 <= colorspace <= 255 and 0 <= color_range <= 255):
            what = f"a raw frame has orientation {orientation}, colours {colorspace} and {color_range}"
            raise MediaError(what, _WHENCE)
        frame.colorspace, frame.color_range = colorspace, color_range
        for number, plane in enumerate(frame.planes):
            lines, line_bytes = plane.height, _line_bytes(frame, len(frame.planes), number)
            size = lines * line_bytes
            if number >= len(left) or size > len(left[number]):
                raise MediaError(f"plane {number} of a raw frame lacks bytes", _WHENCE)
            padded = np.zeros((lines, plane.line_size), np.uint8)
            padded[:, :line_bytes] = left[number][:size].reshape(lines, line_bytes)
            plane.update(padded.tobytes())
            left[number] = left[number][size:]
        yield frame, orientation


def _blank(width: int, height: int, name: list[int], nbytes: int) -> av.VideoFrame:
    """A frame of the format in `frame_info`, for at most `nbytes` of pixels. Raises MediaError."""
    try:
        layout = av.VideoFormat(bytes(name).rstrip(b"\0").decode("ascii"))
    except ValueError as error:
        raise MediaError("a raw frame has no pixel format that FFmpeg knows", _WHENCE) from error
    needed = width * height * layout.padded_bits_per_pixel // 8
    if not (layout.components and 0 < width <= _MOST and 0 < height <= _MOST and needed <= nbytes):
        what = f"a raw frame of {width}x{height} {layout.name} takes {needed} bytes, and {nbytes} are left"
        raise MediaError(what, _WHENCE)
    return av.VideoFrame(width, height, layout.name)


def plane_rows(frame: av.VideoFrame, number: int) -> Array:
    """A view of one plane of a frame, `[lines, bytes a line]` uint8, without padding; valid while the frame lives."""
    planes = frame.planes
    plane = planes[number]
    rows: Array = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : _line_bytes(frame, len(planes), number)]


def stack_frames(rows: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Join the arrays of single frames to arrays of a part: `[F, ...]`; raw frames of different sizes end to end."""
    names = sorted({name for row in rows for name in row})
    return {name: _join([row[name] for row in rows if name in row]) for name in names}


def no_frames(example: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays of a part without frames; types and shapes are those of any one frame."""
    return {name: np.empty((0, *array.shape), array.dtype) for name, array in example.items()}


def blank_frame() -> av.VideoFrame:
    """Return a frame whose conversion gives the names and types of the arrays that a part without frames needs."""
    return av.VideoFrame(16, 16, "yuv420p")


def _join(arrays: list[Array]) -> Array:
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    return np.concatenate(arrays)


def _line_bytes(frame: av.VideoFrame, planes: int, number: int) -> int:
    """Bytes of one line of plane `number` of `planes` that hold pixels."""
    layout = frame.format
    if planes == 1:
        return (layout.padded_bits_per_pixel * frame.width + 7) // 8
    parts = [component for component in layout.components if component.plane == number]
    return sum(component.width * ((component.bits + 7) // 8) for component in parts)
