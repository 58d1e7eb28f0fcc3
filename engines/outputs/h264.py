"""Pictures to one closed GOP of H.264, by x264; what other encoders of H.264 share with it.

The arrays of a GOP, packets in decode order:

    data    [bytes] uint8   all packets, Annex B
    sizes   [N] int32       bytes of each packet
    order   [N] int32       which of the pictures each packet is
    key     [N] uint8       1 where decoding can start
    header  [bytes] uint8   SPS and PPS; equal for all pictures of a size from one encoder
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from engines.encoding import Encoded, Pictures, VideoOptions
from engines.outputs.pictures import plane_view
from engines.part import Array, Tick, no_tick
from schemas.errors import PipelineError

_PIX_FMT = {(1, 1): "yuv444p", (1, 2): "yuv422p", (2, 2): "yuv420p"}  # by vertical and horizontal subsampling
NEUTRAL = 128  # chroma of grey
# stitchable: the headers do not depend on the content, so that they are equal for all parts.
# cpu-independent: equal bytes from all instruction sets. Without it SSE2, AVX2 and ARM take other decisions, and on
# AVX-512 x264's mbtree reads memory that nothing wrote, so that every run gives other bytes.
X264_PARAMS = "stitchable=1:cpu-independent=1"


class Geometry(NamedTuple):
    """The format and size to encode; with subsampled chroma, odd sizes are rounded up."""

    pix_fmt: str
    height: int
    width: int


class X264:
    """libx264 on one core: the same bytes on every run and on every processor."""

    on_gpu = False

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        """Encode one closed GOP. Raises PipelineError for planes that make no picture."""
        planes = [np.asarray(plane) for plane in pictures.planes]
        geometry = geometry_of(planes)
        encoder = new_encoder("libx264", geometry, pictures)
        encoder.options = {"crf": str(options.crf), "preset": options.preset, "x264-params": X264_PARAMS}
        encoder.thread_count = 1
        return encode_gop(encoder, frames_of(planes, geometry), tick)


def geometry_of(planes: Sequence[Array]) -> Geometry:
    """Return pixel format, height and width to encode. Raises PipelineError for planes that make no picture."""
    height, width = planes[0].shape[1:]
    if len(planes) == 1:
        down, across = 2, 2
    else:
        down, across = (_subsampling(planes[0].shape[axis], planes[1].shape[axis]) for axis in (1, 2))
    if (down, across) not in _PIX_FMT:
        raise PipelineError(
            f"planes of {width}x{height} and {planes[1].shape[2]}x{planes[1].shape[1]} are no picture H.264 can hold",
            "a model must scale all planes alike",
        )
    return Geometry(_PIX_FMT[down, across], height + height % down, width + width % across)


def _subsampling(luma: int, chroma: int) -> int:
    """Return how many samples of luma share one of chroma along a side: 1 or 2; 0 for any other number."""
    if chroma == luma:
        return 1
    return 2 if chroma < luma <= 2 * chroma else 0


def new_encoder(name: str, geometry: Geometry, pictures: Pictures) -> VideoCodecContext:
    """Create an encoder, not yet open, for pictures of that geometry, with their colours and shape."""
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    colour, media = pictures.colour, pictures.media
    encoder.pix_fmt, encoder.height, encoder.width = geometry
    rate = Fraction(*media.frame_rate) or Fraction(25)
    encoder.framerate, encoder.time_base = rate, 1 / rate
    encoder.color_range, encoder.colorspace = colour.range, colour.space
    encoder.color_primaries, encoder.color_trc = colour.primaries, colour.transfer
    encoder.sample_aspect_ratio = Fraction(*media.sample_aspect)
    encoder.flags |= Flags.global_header
    return encoder


def encode_gop(encoder: VideoCodecContext, frames: Iterable[av.VideoFrame], tick: Tick = no_tick) -> Encoded:
    """Return all packets of the frames; the encoder cannot be used again."""
    packets = []
    for number, frame in enumerate(frames):
        # frame numbers instead of times: the size of a picture must not depend on the source's clock
        frame.pts = number
        frame.time_base = encoder.time_base
        packets += encoder.encode(frame)
        tick()
    packets += encoder.encode(None)
    arrays: dict[str, Array] = {
        "data": np.frombuffer(b"".join(bytes(packet) for packet in packets), dtype=np.uint8),
        "sizes": np.array([packet.size for packet in packets], dtype=np.int32),
        "order": np.array([packet.pts for packet in packets], dtype=np.int32),
        "key": np.array([packet.is_keyframe for packet in packets], dtype=np.uint8),
        "header": np.frombuffer(encoder.extradata or b"", dtype=np.uint8),
    }
    return Encoded(arrays, {"encoder": encoder.name, "size": [encoder.width, encoder.height]})


def frames_of(planes: Sequence[Array], geometry: Geometry) -> Iterator[av.VideoFrame]:
    """Yield a frame of each row of planes on the host."""
    for row in range(len(planes[0])):
        frame = av.VideoFrame(geometry.width, geometry.height, geometry.pix_fmt)
        for number, plane in enumerate(frame.planes):
            target = plane_view(plane)[:, : plane.width]
            if number < len(planes):
                _fill(target, planes[number][row])
            else:
                target[:] = NEUTRAL
        yield frame


def _fill(target: Array, source: Array) -> None:
    """Copy `source` to `target`: cut to its size, or with the last row and column repeated."""
    height, width = (min(sides) for sides in zip(target.shape, source.shape, strict=True))
    target[:height, :width] = source[:height, :width]
    target[height:, :width] = target[height - 1, :width]
    target[:, width:] = target[:, width - 1 : width]
