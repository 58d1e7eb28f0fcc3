"""Checks the sizes that Pillow's decoders allocate memory for, if an image's header does not state them.

FFmpeg's decoders take a limit of pixels. The decoders that Pillow calls take none; therefore the sizes are read from
the compressed data before Pillow opens it.
"""

import io

import av
from av.video.codeccontext import VideoCodecContext
from PIL import TiffImagePlugin

from engines.media.container import open_container
from engines.media.limits import Limits, decoder_options
from schemas.errors import MediaError
from schemas.wire import Buffer

_SIZES = (256, 278, 322, 323)  # tags of TIFF: width of the picture, rows of a strip, width and length of a tile
_MOST_CHANNELS = 4


def check_declared(name: str, data: Buffer, limits: Limits) -> None:
    """Check the memory that a decoder would allocate for a file of format `name`. Raises ItemTooLarge, MediaError."""
    if name == "jpeg2000":
        _check_codestream(data, limits)
    elif name == "tiff":
        _check_tiles(data, limits)
    elif name in ("avif", "heif"):
        _check_items(name, data, limits)


def _check_codestream(data: Buffer, limits: Limits) -> None:
    """Check the size that a JPEG 2000 codestream states; the file around it may differ. Source: ISO 15444-1, A.5.1,
    I.4.
    """
    view, at = bytes(data), 0
    while view[at : at + 2] != b"\xff\x4f":
        size, kind, head = int.from_bytes(view[at : at + 4], "big"), view[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(view[at + 8 : at + 16], "big"), 16
        if len(kind) < 4 or (kind != b"jp2c" and size < head):
            raise MediaError("the jpeg2000 image has no picture", "copy it again, or export it as png")
        at += head if kind == b"jp2c" else size
        if kind == b"jp2c" and view[at : at + 2] != b"\xff\x4f":
            raise MediaError("the jpeg2000 image is damaged", "copy it again, or export it as png")
    right, bottom, left, top, wide, high = (
        int.from_bytes(view[at + 8 + 4 * place : at + 12 + 4 * place], "big") for place in range(6)
    )
    if int.from_bytes(view[at + 40 : at + 42], "big") > _MOST_CHANNELS:
        raise MediaError(f"the jpeg2000 image has more than {_MOST_CHANNELS} channels", "export it as png")
    limits.check_pixels("the image", right - min(left, right), bottom - min(top, bottom))
    if min(wide, right) * min(high, bottom) > limits.pixels:
        limits.check_pixels("a tile of the image", wide, high)


def _check_tiles(data: Buffer, limits: Limits) -> None:
    """Check the tile or strip that libtiff unpacks at a time; it may be larger than the picture."""
    try:
        opened = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except Exception:  # Pillow reports the reason when the file is opened again
        return
    with opened:
        width, strip, *tile = (_tag(opened, tag) for tag in _SIZES)
        limits.check_pixels("a strip of the image", width, min(strip, opened.height))
        limits.check_pixels("a tile of the image", *tile)


def _tag(image: TiffImagePlugin.TiffImageFile, tag: int) -> int:
    """Return a number of a TIFF's directory, 0 if it is absent. Raises MediaError if libtiff might read another."""
    try:
        value = image.tag_v2.get(tag, 0)
    except Exception as error:
        raise MediaError(f"the tiff image is damaged at its tag {tag}", "copy it again, or export it as png") from error
    if not isinstance(value, int):
        raise MediaError(f"the tiff image is damaged at its tag {tag}", "copy it again, or export it as png")
    return value


def _check_items(name: str, data: Buffer, limits: Limits) -> None:
    """Check that all pictures in an AVIF or HEIC are within the limit, by decoders that enforce it."""
    options = decoder_options(limits.pixels)
    try:
        with open_container(data, "mov", decoder_options={"codec_whitelist": "none"}) as container:
            for stream in container.streams.video:
                limits.check_pixels("the image", stream.width, stream.height)
            for packet in container.demux(video=list(range(len(container.streams.video)))):
                stream = packet.stream
                if not packet.size or stream.codec_context is None:
                    continue
                decoder = av.CodecContext.create("libdav1d" if name == "avif" else "hevc", "r")
                assert isinstance(decoder, VideoCodecContext)
                decoder.extradata, decoder.options, decoder.thread_count = stream.codec_context.extradata, options, 1
                decoder.decode(packet)
                decoder.decode(None)
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"the {name} image is damaged, or has more than {limits.pixels / 1e6:g} million pixels",
            "copy it again, or raise the setting max_pixels",
        ) from error
