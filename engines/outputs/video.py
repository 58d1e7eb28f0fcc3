"""video: frames become H.264 in mp4 with the source's sound; images become png.

Every part becomes a closed GOP of its own, so parts can be encoded anywhere in any order and joined by copying packets.
The arrays of a part's result, packets in decode order:

    data    [bytes] uint8   all packets, Annex B
    sizes   [N] int32       bytes of each packet
    order   [N] int32       which of the part's pictures each packet is: its time is `meta.pts[order]`
    key     [N] uint8       1 where decoding can start
    header  [bytes] uint8   SPS and PPS; equal for all parts of a job while the picture's size is
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from pydantic import Field

from engines.outputs.base import Assembler, Encoded, Options, parse_options
from engines.outputs.colour import Colour, picture_planes
from engines.outputs.images import ImageFolder, encode_images
from engines.outputs.mux import VideoFile
from engines.outputs.pictures import plane_view
from engines.part import Array, Part
from schemas.errors import PipelineError
from schemas.messages import MediaInfo
from schemas.pipeline import EncodeStage

_PIX_FMT = {(1, 1): "yuv444p", (1, 2): "yuv422p", (2, 2): "yuv420p"}  # by vertical and horizontal subsampling
_NEUTRAL = 128  # chroma of grey


class VideoOptions(Options):
    """`crf` is x264's constant quality (lower is better and larger), `preset` its trade of time for size."""

    crf: float = Field(default=18.0, ge=0, le=51)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        "veryfast"
    )


class VideoFormat:
    """H.264 for video, png for images."""

    def __init__(self, stage: EncodeStage) -> None:
        self._options = parse_options(VideoOptions, stage)

    def encode(self, part: Part) -> Encoded:
        """A closed GOP of the part's pictures, or a png of each image."""
        if part.meta.media.kind == "image":
            return encode_images(part)
        if not part.meta.pts:
            return Encoded({})
        planes, colour = picture_planes(part)
        return Encoded(_encode_gop(planes, colour, part.meta.media, self._options))

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Starts `<target>.mp4`, or the folder `<target>` of images."""
        if media.kind == "image":
            return ImageFolder(target)
        return VideoFile.create(target, media)


def _encode_gop(planes: Sequence[Array], colour: Colour, media: MediaInfo, options: VideoOptions) -> dict[str, Array]:
    pix_fmt, height, width = _geometry(planes)
    encoder = _open_encoder(pix_fmt, height, width, colour, media, options)
    packets = []
    for number, frame in enumerate(_frames(planes, pix_fmt, height, width)):
        # numbers instead of times: what a picture costs must not depend on the source's clock
        frame.pts = number
        frame.time_base = encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return {
        "data": np.frombuffer(b"".join(bytes(packet) for packet in packets), dtype=np.uint8),
        "sizes": np.array([packet.size for packet in packets], dtype=np.int32),
        "order": np.array([packet.pts for packet in packets], dtype=np.int32),
        "key": np.array([packet.is_keyframe for packet in packets], dtype=np.uint8),
        "header": np.frombuffer(encoder.extradata or b"", dtype=np.uint8),
    }


def _geometry(planes: Sequence[Array]) -> tuple[str, int, int]:
    """Pixel format, height and width to encode; with subsampled chroma, odd sizes are rounded up."""
    height, width = planes[0].shape[1:]
    if len(planes) == 1:
        down, across = 2, 2
    else:
        down, across = (1 + (planes[1].shape[axis] < planes[0].shape[axis]) for axis in (1, 2))
    if (down, across) not in _PIX_FMT:
        raise PipelineError(
            f"planes of {width}x{height} and {planes[1].shape[2]}x{planes[1].shape[1]} are no picture H.264 can hold",
            "a model must scale all planes alike",
        )
    return _PIX_FMT[down, across], height + height % down, width + width % across


def _open_encoder(
    pix_fmt: str, height: int, width: int, colour: Colour, media: MediaInfo, options: VideoOptions
) -> VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    rate = Fraction(*media.frame_rate) or Fraction(25)
    encoder.framerate, encoder.time_base = rate, 1 / rate
    encoder.color_range, encoder.colorspace = colour.range, colour.space
    encoder.color_primaries, encoder.color_trc = colour.primaries, colour.transfer
    aspect = Fraction(*media.sample_aspect)
    encoder.sample_aspect_ratio = 1 / aspect if aspect and media.rotation % 180 else aspect
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    # stitchable: the headers may not depend on the content, so that they are equal for all parts
    encoder.options = {"crf": str(options.crf), "preset": options.preset, "x264-params": "stitchable=1"}
    encoder.open()
    return encoder


def _frames(planes: Sequence[Array], pix_fmt: str, height: int, width: int) -> Iterator[av.VideoFrame]:
    for row in range(len(planes[0])):
        frame = av.VideoFrame(width, height, pix_fmt)
        for number, plane in enumerate(frame.planes):
            target = plane_view(plane)[:, : plane.width]
            if number < len(planes):
                _fill(target, planes[number][row])
            else:
                target[:] = _NEUTRAL
        yield frame


def _fill(target: Array, source: Array) -> None:
    """Copies `source`, cut to `target`, or its last row and column repeated as far as `target` goes."""
    height, width = (min(sides) for sides in zip(target.shape, source.shape, strict=True))
    target[:height, :width] = source[:height, :width]
    target[height:, :width] = target[height - 1, :width]
    target[:, width:] = target[:, width - 1 : width]
