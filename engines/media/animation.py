"""Turns animated WebP and PNG images into films.

FFmpeg does not read animated WebP, and it unpacks the compressed texts of a PNG without a limit. Pillow decodes both;
each picture becomes a png in a mov file. That is lossless, and the film can be cut at every picture.
"""

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from PIL import ImageFile

from engines.media.container import open_file
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.read_at import reader
from engines.media.sniff import HEAD_BYTES, image_format, is_animation
from engines.media.stills import frame_of, has_alpha, open_still
from schemas.errors import ItemTooLarge
from schemas.text import size
from schemas.wire import Buffer

_BY_PILLOW = ("png", "webp")
_CLOCK = 60_000  # units a second: whole numbers for milliseconds and for the usual frame rates
# The duration of a picture that states none, or almost none. Source: FFmpeg's demuxer of APNG; browsers and
# FFmpeg's GIF demuxer
_LEAST_MS, _DEFAULT_MS = {"png": 0.0, "webp": 10.0}, {"png": 1000 / 15, "webp": 100.0}
_MOST_BYTES = 512 << 20


def film_of(source: Path | Buffer, limits: Limits = DEFAULT_LIMITS) -> Path | Buffer:
    """Return the film made of an animated WebP or PNG; any other source is returned as it is.

    Raises MediaError, ItemTooLarge and OSError.
    """
    if isinstance(source, Path):
        with open_file(source) as file:
            name = _animation(file, os.pread(file, HEAD_BYTES, 0))
            return source if name is None else _film(name, _content(file, limits), limits)
    name = _animation(source, bytes(source[:HEAD_BYTES]))
    return source if name is None else _film(name, source, limits)


def _animation(source: int | Buffer, head: bytes) -> str | None:
    name = image_format(head)
    return name if name in _BY_PILLOW and is_animation(name, reader(source)) else None


def _content(file: int, limits: Limits) -> bytes:
    nbytes = os.fstat(file).st_size
    if nbytes > _MOST_BYTES:
        what = f"the animation has {size(nbytes)}, and one may have {size(_MOST_BYTES)}"
        raise ItemTooLarge(what, "convert it to a video")
    return os.pread(file, nbytes, 0)


def _film(name: str, data: Buffer, limits: Limits) -> bytes:
    """Encode the pictures as pngs in a mov file. Raises MediaError and ItemTooLarge."""
    film = io.BytesIO()
    with open_still(name, data, limits) as image, av.open(film, "w", format="mov") as out:
        layout = "rgba" if has_alpha(image) else "rgb24"
        stream = out.add_stream("png", rate=25, options={"pred": "up", "compression_level": "1"})
        stream.width, stream.height, stream.pix_fmt = image.width, image.height, layout
        stream.time_base = stream.codec_context.time_base = Fraction(1, _CLOCK)
        stream.codec_context.thread_count = 1
        at_ms = 0.0
        for frame, lasts_ms in _pictures(image, name, layout):
            limits.check_duration("the animation", (at_ms + lasts_ms) / 1000)
            frame.pts, frame.time_base = round(at_ms * _CLOCK / 1000), Fraction(1, _CLOCK)
            for packet in stream.encode(frame):
                packet.duration = round(lasts_ms * _CLOCK / 1000)
                out.mux(packet)
            at_ms += lasts_ms
            if film.tell() > _MOST_BYTES:
                raise ItemTooLarge(f"the animation takes more than {size(_MOST_BYTES)}", "convert it to a video")
    return film.getvalue()


def _pictures(image: ImageFile.ImageFile, name: str, layout: str) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield each picture with the milliseconds that it is shown."""
    first = int(bool(image.info.get("default_image")))  # the first one is only for readers that show no animation
    for number in range(first, getattr(image, "n_frames", 1)):
        image.seek(number)
        image.load()
        lasts_ms = float(image.info.get("duration") or 0)
        yield frame_of(image, alpha=layout == "rgba"), lasts_ms if lasts_ms > _LEAST_MS[name] else _DEFAULT_MS[name]
