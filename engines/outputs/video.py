"""video: frames become H.264 in mp4 with the source's sound; images become png.

Every part becomes a closed GOP of its own with the headers it needs, so parts can be encoded anywhere in any order, by
whichever encoder is there, and joined by copying packets. The arrays of a part's result are those of `engines.outputs.
h264`, the time of a packet is `meta.pts[order]`; `facts` hold the `encoder` and the `size` (width, height).
"""

from pathlib import Path

from engines.outputs.base import Assembler, Encoded, parse_options
from engines.outputs.colour import picture_planes
from engines.outputs.h264 import X264, PictureEncoder, Pictures, VideoOptions
from engines.outputs.images import ImageFolder, encode_images
from engines.outputs.mux import VideoFile
from engines.part import Part, Tick, no_tick
from schemas.messages import MediaInfo
from schemas.pipeline import EncodeStage


class VideoFormat:
    """H.264 for video, png for images. Parts are brought to the host only as far as the `encoder` wants them there."""

    def __init__(self, stage: EncodeStage, encoder: PictureEncoder | None = None) -> None:
        self._options = parse_options(VideoOptions, stage)
        self._encoder = encoder or X264()

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """A closed GOP of the part's pictures, or a png of each image."""
        if part.meta.media.kind == "image":
            return encode_images(part.on_host(), tick)
        if not part.meta.pts:
            return Encoded({})
        planes, colour = picture_planes(part if self._encoder.on_card else part.on_host())
        return self._encoder.encode(Pictures(planes, colour, part.meta.media), self._options, tick)

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """`<target>.mp4`, begun with the first part, or the folder `<target>` of images."""
        if media.kind == "image":
            return ImageFolder(target)
        return VideoFile(target, media)
