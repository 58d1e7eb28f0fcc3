"""Makes all pictures that a pipeline needs of each frame, while frames are decoded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from engines.media.frames import blank_frame, no_frames, pack_frame, stack_frames, unpack_frames
from engines.media.orientation import UPRIGHT, transposes
from engines.media.stills import Decoded
from engines.part import Array, Part, Tick, no_tick
from engines.planned import FRAME_SIZE, is_of_model, plane_name
from engines.ports import Preprocessing
from engines.transforms import Picture
from schemas.picture import PictureSpec


class Maker(Protocol):
    """Makes one kind of picture of single frames, on the host or on a GPU."""

    def convert(self, frame: Decoded, orientation: int) -> Sequence[Any]:
        """Return the picture of one frame: one array, or one for each plane."""
        ...


class FramePictures:
    """Makes all pictures of a frame, by the names of their arrays; equal pictures are made once."""

    def __init__(self, pictures: Mapping[str, PictureSpec], make: Callable[[PictureSpec], Maker]) -> None:
        names: dict[PictureSpec, list[str]] = {}
        for name, spec in pictures.items():
            names.setdefault(spec, []).append(name)
        # a frame on a GPU has no transparency: nothing of it is read
        by = {spec: Picture(spec) if spec.layout == "alpha" else make(spec) for spec in names}
        self._made = [(by[spec], spec.layout == "planes", each) for spec, each in names.items()]
        self._sized = any(map(is_of_model, pictures))

    @property
    def makers(self) -> list[Maker]:
        """What makes them."""
        return [maker for maker, _, _ in self._made]

    def __call__(self, frame: Decoded, orientation: int) -> dict[str, Array]:
        """Return the arrays of one frame, with its upright (height, width) if one of them is a model's picture."""
        arrays: dict[str, Array] = {}
        for maker, planes, names in self._made:
            made = maker.convert(frame, orientation)
            for name in names:
                if planes:
                    arrays |= {plane_name(name, n): plane for n, plane in enumerate(made)}
                else:
                    arrays[name] = made[0]
        if self._sized:
            size = (frame.width, frame.height) if transposes(orientation) else (frame.height, frame.width)
            arrays[FRAME_SIZE] = np.array(size, np.int32)
        return arrays


class HostPictures:
    """Makes pictures of frames on the host. Not thread-safe: use one instance for each thread.

    With `raw`, the result also has the frame, for a resize stage of another worker.
    """

    def __init__(self, pictures: Mapping[str, PictureSpec], raw: bool = False) -> None:
        self._raw = raw
        self._made = FramePictures(pictures, Picture)

    def convert(self, frame: Decoded, orientation: int = UPRIGHT) -> dict[str, Array]:
        """Return `name [H, W, 3]` or `[H, W]` for a picture, `name0` ... for planes, uint8, upright; `frame_size`."""
        arrays = self._made(frame, orientation)
        return arrays | pack_frame(frame, orientation) if self._raw else arrays

    def synchronize(self) -> None:
        """Do nothing: arrays on the host are complete."""


def resized_part(part: Part, preprocess: Preprocessing, tick: Tick = no_tick) -> Part:
    """Make the pictures of a part of raw frames: the same part that decode would have made with these pictures."""
    rows = []
    for frame, orientation in unpack_frames(part):
        rows.append(preprocess.convert(frame, orientation))
        tick()
    made = stack_frames(rows) if rows else no_frames(preprocess.convert(blank_frame()))
    preprocess.synchronize()
    kept = {name: array for name, array in part.arrays.items() if not name.startswith("frame") or name == FRAME_SIZE}
    return part.with_arrays({**kept, **made})
