"""Converts a part's arrays to the planes and the colour metadata of the pictures to encode."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from engines.cuda.arrays import GpuRows
from engines.cuda.yuv import yuv420_rows
from engines.encoding import Colour
from engines.media.colours import BT709, FULL, LIMITED, UNNAMED, source_matrix
from engines.media.reshape import EXACT
from engines.outputs.pictures import plane_view
from engines.part import Array, Part
from engines.planned import Tensor
from engines.registry import load
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.model import describe


def picture_planes(part: Part, bits: int = 8) -> tuple[list[Array], Colour]:
    """Return one picture a window: luma and, if there is colour, two chroma planes, each `[W, H, W'] uint8`.

    They are `plane0` ... unchanged, or made from `pixels` (`[F, H, W, 3]` rgb or `[F, H, W]` grey). Those made from
    rgb have as many `bits`, as uint16 if that is more than 8, and are made when they are read. Rows are frames, which
    `index` maps to windows if the two differ. Raises PipelineError if the part holds neither.
    """
    media = part.meta.media
    if "plane0" in part.arrays:  # they may be on a GPU, and stay there
        planes = [_rows(part, name) for name in ("plane0", "plane1", "plane2") if name in part.arrays]
        for number, plane in enumerate(planes):
            if plane.ndim != 3 or 0 in plane.shape:
                raise PipelineError(f"`plane{number}` has shape {list(plane.shape)}", "format video takes [F, H, W]")
        return planes if len(planes) == 3 else planes[:1], _source_colour(media)
    check_names(part.arrays)
    pixels = _rows(part, "pixels")
    if pixels.ndim == 3 and 0 not in pixels.shape:
        return [pixels], _source_colour(media)._replace(range=FULL)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise PipelineError(f"`pixels` has shape {list(pixels.shape)}", "format video takes [F, H, W, 3] or [F, H, W]")
    return _yuv420(pixels, media, bits)


# how many colours the last axis of an array may have; planes of films have none
_OF_FILMS: tuple[Sequence[int], str] = ((3,), "[F, H, W] and [F, H, W, 3]")
_OF_FILES: tuple[Sequence[int], str] = ((1, 2, 3, 4), "[F, H, W] and [F, H, W, 1 to 4]")
# what to do where a format lacks the pictures themselves
KEEP_PICTURES = (
    'have a resize stage with layout = "planes" behind decode, and keeps = ["plane0", "plane1", "plane2"] in infer'
)
_PLANES: tuple[Sequence[int], str] = ((), "[F, H, W]")


def check_pictures(arrays: Mapping[str, Tensor], media: Sequence[str], format_name: str) -> None:
    """Raise PipelineError unless such arrays include pictures of uint8: `plane0` ... or `pixels`."""
    check_names(arrays, format_name)
    name = "plane0" if "plane0" in arrays else "pixels"
    check_picture(name, arrays[name], media, format_name)


def check_picture(name: str, found: Tensor, media: Sequence[str], format_name: str) -> None:
    """Raise PipelineError unless an array is pictures of uint8 whose colours suit each kind of media."""
    if found.dtype != "uint8":
        raise PipelineError(f"`{name}` is {found.dtype}", f"format {format_name} takes uint8; round in the model")
    for kind in media:
        of_films = _PLANES if name == "plane0" else _OF_FILMS
        colours, words = of_films if load("media", kind).timed else _OF_FILES
        last = found.shape[-1]
        if len(found.shape) != 3 and (
            len(found.shape) != 4 or not colours or (isinstance(last, int) and last not in colours)
        ):
            what = f"`{name}` is {describe(found.dtype, found.shape)}"
            raise PipelineError(what, f"of {kind}, format {format_name} takes {words}")


def check_names(arrays: Collection[str], format_name: str = "video") -> None:
    """Raise PipelineError unless one of the arrays holds pictures."""
    if "plane0" not in arrays and "pixels" not in arrays:
        held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
        raise PipelineError(f"format {format_name} needs `plane0` or `pixels`, the part holds {held}", KEEP_PICTURES)


def _rows(part: Part, name: str) -> Array:
    array, windows = part.array(name), len(part.meta.pts)
    if not array.ndim:
        raise PipelineError(f"`{name}` is a single number", "format video takes [F, H, W, 3] or [F, H, W]")
    if array.dtype != np.uint8:
        raise PipelineError(f"`{name}` is {array.dtype}", "format video takes uint8; round in the model")
    if len(array) == windows:
        return array
    if "index" not in part.arrays:
        raise PipelineError(
            f"`{name}` has {len(array)} frames for {windows} windows", 'add keeps = ["index"] to the infer stages'
        )
    rows: Array = array[np.asarray(part.array("index"))[:, 0]]
    return rows


def _source_colour(media: MediaInfo) -> Colour:
    return Colour(media.color_range, media.color_space, media.color_primaries, media.color_transfer)


def _yuv420(pixels: Array, media: MediaInfo, bits: int) -> tuple[list[Array], Colour]:
    """Convert RGB `[W, H, W', 3]` to 4:2:0 planes, limited range, BT.709 from 720 lines on and BT.601 below.

    Pictures of even sides on a GPU become planes of 8 bits there, with the same bytes.
    """
    space = source_matrix(UNNAMED[0], pixels.shape[1])
    colour = Colour(LIMITED, space, media.color_primaries, media.color_transfer)
    if isinstance(pixels, GpuRows) and bits == 8 and not (pixels.shape[1] % 2 or pixels.shape[2] % 2):
        return [cast(Array, plane) for plane in yuv420_rows(pixels, space)], colour
    rows = _RowsOfRgb(pixels, Colorspace.ITU709 if space == BT709 else Colorspace.ITU601, bits)
    count, height, width = pixels.shape[:3]
    half = (-(-height // 2), -(-width // 2))
    planes = [
        cast(Array, LazyPlane(rows, number, (count, *(half if number else (height, width))), rows.dtype))
        for number in range(3)
    ]
    return planes, colour


class _RowsOfRgb:
    """RGB pictures whose planes of YCbCr are made when they are read: of all at once they would take half as much again
    as the pictures, which are gigabytes of a part of large ones.
    """

    def __init__(self, pixels: Array, matrix: Colorspace, bits: int) -> None:
        self.pixels, self._matrix = pixels, matrix
        self._format = "yuv420p" if bits == 8 else "yuv420p10le"
        self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
        self._reformatter = VideoReformatter()
        self._newest: tuple[int, list[Array]] = (-1, [])

    def planes(self, row: int) -> list[Array]:
        """Return the three planes of a picture; those of the last one asked for are kept."""
        if self._newest[0] != row:
            yuv = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(self.pixels[row]), format="rgb24"),
                format=self._format,
                dst_colorspace=self._matrix,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BICUBIC | EXACT,
                threads=1,
            )
            views = [plane_view(plane).view(self.dtype)[:, : plane.width] for plane in yuv.planes]
            self._newest = row, [view.copy() for view in views]
        return self._newest[1]


class RowsOfPlanes(Protocol):
    """Pictures whose planes are made when they are read."""

    def planes(self, row: int) -> Sequence[Array]:
        """Return the planes of a picture; the last one that was asked for is kept."""
        ...


class LazyPlane:
    """One plane `[N, H, W]` of such pictures, as far as encoders read arrays: whole rows one by one, or as an array."""

    def __init__(self, rows: RowsOfPlanes, number: int, shape: tuple[int, int, int], dtype: Any) -> None:
        self._rows, self._number = rows, number
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), 3

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> Array:
        return self._rows.planes(row)[self._number]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        made = np.empty(self.shape, self.dtype)
        for row in range(len(self)):
            made[row] = self[row]
        return made if dtype is None else made.astype(dtype)
