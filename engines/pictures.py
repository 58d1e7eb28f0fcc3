"""All pictures that a pipeline wants of each frame, made as the frame leaves the decoder."""

from collections.abc import Mapping

import av
import numpy as np

from engines.media.frames import blank_frame, no_frames, pack_frame, stack_frames, unpack_frames
from engines.media.medium import medium_of
from engines.media.orientation import UPRIGHT, transposes
from engines.part import Array, Part, Tick, no_tick
from engines.planned import FRAME_SIZE, plane_name
from engines.ports import Preprocessing
from engines.transforms import Picture
from schemas.model import PictureSpec


class Pictures:
    """Makes pictures of frames on the host; equal ones are made once. Not thread-safe: one instance a thread.

    With `raw`, the frame goes along for a resize stage elsewhere.
    """

    def __init__(self, pictures: Mapping[str, PictureSpec], raw: bool = False) -> None:
        self.pictures = pictures
        self._raw = raw
        self._made = {spec: Picture(spec) for spec in pictures.values()}

    def convert(self, frame: av.VideoFrame, orientation: int = UPRIGHT) -> dict[str, Array]:
        """`name [H, W, 3]` or `[H, W]` for a picture, `name0` ... for one of planes, uint8, upright; `frame_size`."""
        made = {spec: picture.convert(frame, orientation) for spec, picture in self._made.items()}
        arrays = named(self.pictures, made)
        if self._raw:
            arrays |= pack_frame(frame, orientation)
        return with_size(arrays, self.pictures, frame, orientation)

    def synchronize(self) -> None:
        """Nothing to wait for."""


def named(pictures: Mapping[str, PictureSpec], made: Mapping[PictureSpec, list[Array]]) -> dict[str, Array]:
    """The arrays of one frame by their names."""
    arrays: dict[str, Array] = {}
    for name, spec in pictures.items():
        planes = spec.layout == "planes"
        arrays |= {plane_name(name, n) if planes else name: array for n, array in enumerate(made[spec])}
    return arrays


def with_size(
    arrays: dict[str, Array], pictures: Mapping[str, PictureSpec], frame: av.VideoFrame, orientation: int
) -> dict[str, Array]:
    """The arrays of one frame, and its upright (height, width) where a model's picture is among them."""
    if any("@" in name for name in pictures):
        size = (frame.width, frame.height) if transposes(orientation) else (frame.height, frame.width)
        arrays[FRAME_SIZE] = np.array(size, np.int32)
    return arrays


def resized_part(part: Part, preprocess: Preprocessing, tick: Tick = no_tick) -> Part:
    """A part of raw frames as the part that making the pictures while decoding would have given."""
    rows = []
    for frame, orientation in unpack_frames(part):
        rows.append(preprocess.convert(frame, orientation))
        tick()
    made = (
        stack_frames(rows)
        if rows
        else no_frames(preprocess.convert(blank_frame(medium_of(part.meta.media).pixel_format)))
    )
    preprocess.synchronize()
    kept = {name: array for name, array in part.arrays.items() if not name.startswith("frame") or name == FRAME_SIZE}
    return part.with_arrays({**kept, **made})
