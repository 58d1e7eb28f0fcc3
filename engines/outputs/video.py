"""video: frames become H.264 in mp4 with the source's sound; images become png.

Every part becomes a closed GOP of its own with the headers it needs, so parts can be encoded anywhere in any order, by
whichever encoder is there, and joined by copying packets. The arrays of a part's result are those of `engines.outputs.
h264`, the time of a packet is `meta.pts[order]`; `facts` hold the `encoder` and the `size` (width, height).
"""

from collections.abc import Mapping
from pathlib import Path

from engines.outputs.base import Assembler, Encoded, parse_options
from engines.outputs.colour import check_names, picture_planes
from engines.outputs.h264 import X264, PictureEncoder, Pictures, VideoOptions
from engines.outputs.images import ImageFolder, encode_images
from engines.outputs.mux import VideoFile
from engines.part import Part, Tick, no_tick
from schemas.errors import PipelineError
from schemas.messages import MediaInfo
from schemas.pipeline import EncodeStage, TensorSpec, describe


class VideoFormat:
    """H.264 for video, png for images. Parts are brought to the host only as far as the `encoder` wants them there."""

    def __init__(self, stage: EncodeStage, encoder: PictureEncoder | None = None) -> None:
        self._options = parse_options(VideoOptions, stage)
        self._encoder = encoder or X264()

    def check(self, arrays: Mapping[str, TensorSpec]) -> None:
        """Pictures of uint8: `plane0` ... or `pixels`."""
        check_names(arrays)
        name = "plane0" if "plane0" in arrays else "pixels"
        array = arrays[name]
        if array.dtype != "uint8":
            raise PipelineError(f"`{name}` is {array.dtype}", "format video takes uint8; round in the model")
        if len(array.shape) not in ((3, 4) if name == "pixels" else (3,)):
            found = describe(array.dtype, array.shape)
            raise PipelineError(f"`{name}` is {found}", "format video takes [F, H, W], or [F, H, W, 3] as `pixels`")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """A closed GOP of the part's pictures, or a png of each image."""
        if part.meta.media.kind == "image":
            return encode_images(part.on_host(), tick)
        if not part.meta.pts:
            return Encoded({})
        planes, colour = picture_planes(part if self._encoder.on_card else part.on_host())
        return self._encoder.encode(Pictures(planes, colour, part.meta.media), self._options, tick)

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Starts `<target>.mp4`, or the folder `<target>` of images."""
        if media.kind == "image":
            return ImageFolder(target)
        return VideoFile.create(target, media)
