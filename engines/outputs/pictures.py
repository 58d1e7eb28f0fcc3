"""Single pictures to and from png and jpeg, by FFmpeg's codecs."""

from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation

from engines.part import Array
from engines.transforms import EXACT

_PNG_FORMATS = {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"}
_JPEG_QUALITY = 4 * 118  # a quantiser of 4 (1 best, 31 worst) in units of FF_QP2LAMBDA


def encode_png(pixels: Array) -> bytes:
    """A png of `[H, W]` or `[H, W, C]` uint8, C: grey and alpha, RGB, RGBA."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    # zlib's level 6 takes six times as long for 15 % fewer bytes
    return _encode(pixels, "png", _PNG_FORMATS[channels], {"pred": "up", "compression_level": "1"})


def encode_jpeg(pixels: Array) -> bytes:
    """A jpeg of `[H, W, 3]` uint8 RGB, for thumbnails."""
    return _encode(pixels, "mjpeg", "yuvj420p", {"dct": "int"})  # the only one that all processors compute alike


def decode_jpeg(data: bytes) -> Array:
    """`[H, W, 3]` uint8 RGB of a jpeg of ours."""
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    frame = decoder.decode(av.Packet(data))[0]
    return np.asarray(frame.reformat(format="rgb24", interpolation=Interpolation.BICUBIC | EXACT).to_ndarray())


def plane_view(plane: VideoPlane) -> Array:
    """`[H, line_size] uint8` of a plane, its padding with it; writing there writes to the frame."""
    return np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)


def _encode(pixels: Array, codec: str, pix_fmt: str, options: dict[str, str]) -> bytes:
    height, width = pixels.shape[:2]
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = options
    encoder.flags |= Flags.qscale
    encoder.global_quality = _JPEG_QUALITY
    frame = _frame(pixels)
    if pix_fmt != frame.format.name:
        frame = frame.reformat(format=pix_fmt, interpolation=Interpolation.BICUBIC | EXACT)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


def _frame(pixels: Array) -> av.VideoFrame:
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    frame = av.VideoFrame(width, height, _PNG_FORMATS[channels])
    plane_view(frame.planes[0])[:, : width * channels] = pixels.reshape(height, width * channels)
    return frame
