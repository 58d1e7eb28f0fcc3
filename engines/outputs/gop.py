"""Pictures to one closed GOP: what all encoders of films share.

The arrays of a GOP, packets in decode order:

    data    [bytes] uint8   all packets, Annex B; of AV1, its OBUs
    sizes   [N] int32       bytes of each packet
    order   [N] int32       which of the pictures each packet is
    key     [N] uint8       1 where decoding can start
    header  [bytes] uint8   parameter sets, of AV1 none; equal for all pictures of a size from one encoder
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from engines.encoding import Encoded, Pictures
from engines.media.limits import decoder_options
from engines.outputs.pictures import plane_view
from engines.part import Array, Tick, no_tick
from engines.priority import open_encoder
from schemas.errors import OutputError, PipelineError

_PIX_FMT = {(1, 1): "yuv444p", (1, 2): "yuv422p", (2, 2): "yuv420p"}  # by vertical and horizontal subsampling
_DEEPER = {8: "", 10: "10le"}
NEUTRAL = 128  # chroma of grey, of 8 bits


class Geometry(NamedTuple):
    """The format and size to encode; with subsampled chroma, odd sizes are rounded up."""

    pix_fmt: str
    height: int
    width: int


def geometry_of(planes: Sequence[Array], bits: int = 8) -> Geometry:
    """Return pixel format, height and width to encode in `bits` a sample. Raises PipelineError for planes that make no
    picture.
    """
    height, width = planes[0].shape[1:]
    if len(planes) == 1:
        down, across = 2, 2
    else:
        down, across = (_subsampling(planes[0].shape[axis], planes[1].shape[axis]) for axis in (1, 2))
    if (down, across) not in _PIX_FMT:
        raise PipelineError(
            f"planes of {width}x{height} and {planes[1].shape[2]}x{planes[1].shape[1]} are no picture of a film",
            "a model must scale all planes alike",
        )
    return Geometry(_PIX_FMT[down, across] + _DEEPER[bits], height + height % down, width + width % across)


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
    open_encoder(encoder)
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
    codec = encoder.codec.canonical_name
    if codec == "av1":
        arrays["header"] = arrays["header"][:0]  # the first packet has it
    return Encoded(arrays, {"encoder": encoder.name, "codec": codec, "size": [encoder.width, encoder.height]})


def frames_of(planes: Sequence[Array], geometry: Geometry, full_range: bool = False) -> Iterator[av.VideoFrame]:
    """Yield a frame of each row of planes `[N, H, W]` on the host: uint8, or uint16 with values of 10 bits.

    For a geometry of 10 bits, uint8 becomes 10 bits: 4 times as much, of `full_range` 1023/255 times.
    """
    for row in range(len(planes[0])):
        frame = av.VideoFrame(geometry.width, geometry.height, geometry.pix_fmt)
        deep = frame.format.components[0].bits > 8
        for number, plane in enumerate(frame.planes):
            target = plane_view(plane)
            if deep:
                target = target.view(np.uint16)
            target = target[:, : plane.width]
            if number < len(planes):
                _fill(target, _deepened(planes[number][row], full_range) if deep else planes[number][row])
            else:
                target[:] = NEUTRAL * 4 if deep else NEUTRAL
        yield frame


def _deepened(plane: Array, full_range: bool) -> Array:
    """A plane of 8 bits as one of 10; one of uint16 as it is."""
    if plane.dtype == np.uint16:
        return plane
    if full_range:
        return ((plane.astype(np.uint32) * 1023 + 127) // 255).astype(np.uint16)
    return plane.astype(np.uint16) << 2


def _fill(target: Array, source: Array) -> None:
    """Copy `source` to `target`: cut to its size, or with the last row and column repeated."""
    height, width = (min(sides) for sides in zip(target.shape, source.shape, strict=True))
    target[:height, :width] = source[:height, :width]
    target[height:, :width] = target[height - 1, :width]
    target[:, width:] = target[:, width - 1 : width]


def decode_h264(arrays: Mapping[str, Array], pixels: int) -> Iterator[av.VideoFrame]:
    """Yield the frames of a GOP of H.264 in the order of its pictures.

    Raises OutputError if it is none, or its frames have more than `pixels`.
    """
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_type, decoder.thread_count = ThreadType.NONE, 1
    decoder.options = decoder_options(pixels)
    data = arrays["header"].tobytes() + arrays["data"].tobytes()
    at, sizes = 0, arrays["sizes"].tolist()
    sizes[0] += len(arrays["header"])
    try:
        for size, number in zip(sizes, arrays["order"].tolist(), strict=True):
            packet = av.Packet(data[at : at + size])
            packet.pts, at = number, at + size
            yield from decoder.decode(packet)
        yield from decoder.decode(None)
    except FFmpegError as error:
        raise OutputError(f"the pictures of a result cannot be decoded ({error})", "publish its job again") from error
