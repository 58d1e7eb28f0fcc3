"""video: frames become H.264 in mp4 with the source's sound; images become png.

Every part becomes a closed GOP of its own with the headers it needs, so parts can be encoded anywhere in any order, by
whichever encoder is there, and joined by copying packets. The arrays of a part's result are those of `engines.outputs.
h264`, the time of a packet is `meta.pts[order]`; `facts` hold the `encoder` and the `size` (width, height).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from engines.outputs.base import BaseFormat
from engines.outputs.colour import check_names, picture_planes
from engines.outputs.h264 import X264
from engines.outputs.images import ImageFolder, encode_images
from engines.outputs.mux import VideoFile
from engines.part import Part, Tick, no_tick
from engines.planned import Tensor
from engines.ports import Assembler, Encoded, Pictures, VideoOptions
from schemas.errors import PipelineError
from schemas.messages import MediaInfo
from schemas.model import describe

# how many colours the last axis of an array may have, by the kind of media; planes have none
_COLOURS: Mapping[str, tuple[Sequence[int], str]] = {
    "video": ((3,), "[F, H, W] and [F, H, W, 3]"),
    "image": ((1, 2, 3, 4), "[F, H, W] and [F, H, W, 1 to 4]"),
}
_PLANES: tuple[Sequence[int], str] = ((), "[F, H, W]")


class VideoFormat(BaseFormat[VideoOptions]):
    """H.264 for video, png for images. Parts are brought to the host only as far as the `encoder` wants them there."""

    options_class = VideoOptions

    @property
    def sound(self) -> Literal["copy", "aac"]:
        """What the options say."""
        return self._options.sound

    anywhere = True

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Pictures of uint8: `plane0` ... or `pixels`, with the colours that each kind of media can have."""
        check_names(arrays)
        name = "plane0" if "plane0" in arrays else "pixels"
        dtype, shape = arrays[name].dtype, arrays[name].shape
        if dtype != "uint8":
            raise PipelineError(f"`{name}` is {dtype}", "format video takes uint8; round in the model")
        for kind in media:
            colours, words = _COLOURS[kind] if name == "pixels" or kind == "image" else _PLANES
            last = shape[-1]
            if len(shape) != 3 and (len(shape) != 4 or not colours or (isinstance(last, int) and last not in colours)):
                what = f"`{name}` is {describe(dtype, shape)}"
                raise PipelineError(what, f"of {kind}, format video takes {words}")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """A closed GOP of the part's pictures, or a png of each image."""
        if part.meta.media.kind == "image":
            return encode_images(part.on_host(), tick)
        if not part.meta.pts:
            return Encoded({})
        encoder = self._encoder or X264()
        planes, colour = picture_planes(part if encoder.on_gpu else part.on_host())
        return encoder.encode(Pictures(planes, colour, part.meta.media), self._options, tick)

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """`<target>.mp4`, begun with the first part, or the folder `<target>` of images."""
        if media.kind == "image":
            return ImageFolder(target)
        return VideoFile(target, media)
