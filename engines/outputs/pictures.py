"""Converts single pictures to and from png and jpeg by FFmpeg's codecs; to jpeg and webp of any quality by Pillow."""

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation
from PIL import Image

from engines.media.limits import DEFAULT_LIMITS, decoder_options
from engines.media.reshape import EXACT
from engines.part import Array
from schemas.errors import PipelineError

_PNG_FORMATS = {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"}
_JPEG_QUALITY = 4 * 118  # a quantiser of 4 (1 best, 31 worst) in units of FF_QP2LAMBDA


def encode_png(pixels: Array | Sequence[Array]) -> bytes:
    """Return a png of `[H, W]` or `[H, W, C]` uint8, C: grey and alpha, RGB, RGBA; or of channels `[H, W]`."""
    # zlib's level 6 takes six times as long for 15 % fewer bytes
    return _encode(_frame(pixels), "png", {"pred": "up", "compression_level": "1"})


def encode_file(pixels: Array | Sequence[Array], kind: str, quality: int) -> bytes:
    """Return a picture, in the form that `encode_png` takes, as a file of that kind: png, jpeg (no alpha) or webp.

    `quality` is that of jpeg and webp, 1 to 100. Raises PipelineError if the kind cannot hold a picture of that size.
    """
    if kind == "png":
        return encode_png(pixels)
    array = pixels if isinstance(pixels, np.ndarray) else np.stack(pixels, axis=-1)
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 1 else array
    if kind == "jpeg" and array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    data = BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(data, kind, quality=quality)
    except (OSError, ValueError) as error:
        what = f"a picture of {array.shape[1]}x{array.shape[0]} cannot be a {kind} file"
        raise PipelineError(what, 'set file = "png"') from error
    return data.getvalue()


def encode_jpeg(pixels: Array) -> bytes:
    """Return a jpeg of `[H, W, 3]` uint8 RGB, for thumbnails."""
    frame = _frame(pixels).reformat(format="yuvj420p", interpolation=Interpolation.BICUBIC | EXACT)
    return _encode(frame, "mjpeg", {"dct": "int"})  # the only one with the same result on all processors


def decode_jpeg(data: bytes) -> Array:
    """Return `[H, W, 3]` uint8 RGB of a thumbnail. Raises FFmpegError for other data, or too many pixels."""
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options = decoder_options(DEFAULT_LIMITS.pixels)
    frame = decoder.decode(av.Packet(data))[0]
    return np.asarray(frame.reformat(format="rgb24", interpolation=Interpolation.BICUBIC | EXACT).to_ndarray())


def plane_view(plane: VideoPlane) -> Array:
    """Return `[H, line_size] uint8` of a plane with its padding; writing to it changes the frame."""
    return np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)


def _encode(frame: av.VideoFrame, codec: str, options: dict[str, str]) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = options
    encoder.flags |= Flags.qscale
    encoder.global_quality = _JPEG_QUALITY
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


def _frame(pixels: Array | Sequence[Array]) -> av.VideoFrame:
    """Return one frame; channels are copied one by one, because large pictures take much memory."""
    if isinstance(pixels, np.ndarray):
        height, width = pixels.shape[:2]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
    else:
        (height, width), channels = pixels[0].shape, len(pixels)
    frame = av.VideoFrame(width, height, _PNG_FORMATS[channels])
    target = plane_view(frame.planes[0])[:, : width * channels]
    if isinstance(pixels, np.ndarray):
        target[:] = pixels.reshape(height, width * channels)
    else:
        for number, channel in enumerate(pixels):
            target[:, number::channels] = channel
    return frame
