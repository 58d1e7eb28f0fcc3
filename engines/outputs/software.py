"""Encoders of films on the host: x264, x265 and SVT-AV1, each with the same bytes on every run and processor."""

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.cuda.arrays import GpuRows
from engines.encoding import Encoded, Pictures, VideoOptions
from engines.media.colours import FULL
from engines.outputs.colour import LazyPlane
from engines.outputs.gop import Geometry, encode_gop, frames_of, geometry_of, new_encoder
from engines.part import Tick, no_tick
from schemas.errors import MediaError, PipelineError

# stitchable: the headers do not depend on the content, so that they are equal for all parts.
# cpu-independent: equal bytes from all instruction sets. Without it SSE2, AVX2 and ARM take other decisions, and on
# AVX-512 x264's mbtree reads memory that nothing wrote, so that every run gives other bytes.
X264_PARAMS = "stitchable=1:cpu-independent=1"
# frame-threads and pools: with more frames at a time their rate control sees other frames. open-gop: parts need nothing
# of each other. info: without it the file holds the processor's name. All instruction sets give equal bytes.
X265_PARAMS = "frame-threads=1:pools=none:open-gop=0:info=0:log-level=none"
# lp: one thread; more give the same bytes. See `_svt_params` for `asm`.
SVT_AV1_PARAMS = "lp=1"
_SVT_PRESETS = {
    "ultrafast": 12,
    "superfast": 11,
    "veryfast": 10,
    "faster": 9,
    "fast": 8,
    "medium": 7,
    "slow": 6,
    "slower": 5,
    "veryslow": 4,
}


def _x264(options: VideoOptions) -> Mapping[str, str]:
    return {"crf": str(options.quantiser), "preset": options.preset, "x264-params": X264_PARAMS}


def _x265(options: VideoOptions) -> Mapping[str, str]:
    return {"crf": str(options.quantiser), "preset": options.preset, "x265-params": X265_PARAMS}


def _svt_av1(options: VideoOptions) -> Mapping[str, str]:
    os.environ.setdefault("SVT_LOG", "1")  # the library prints its settings to stderr; nothing else turns that off
    preset = str(_SVT_PRESETS[options.preset])
    return {"crf": str(round(options.quantiser)), "preset": preset, "svtav1-params": _svt_params()}


@cache
def _svt_params() -> str:
    """SVT-AV1's kernels in C and for AVX2 and AVX-512 give equal bytes, those for SSE4.1 and AVX others.

    So processors without AVX2, and others than x86, use those in C, which take four times as long.
    """
    found = ""
    if platform.machine() == "x86_64":
        with suppress(OSError):
            found = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    flags = found.partition("flags")[2].partition("\n")[0].split()
    return SVT_AV1_PARAMS if "avx2" in flags else f"{SVT_AV1_PARAMS}:asm=c"


class _Encoder(NamedTuple):
    """FFmpeg's name of an encoder, its options, whether it takes other pictures than 4:2:0, and its shortest side.

    x265 reads memory that nothing wrote where a row has one block of 64 x 64 or less, so that runs give other bytes,
    and aborts for some smaller sizes.
    """

    name: str
    options: Callable[[VideoOptions], Mapping[str, str]]
    all_chroma: bool = True
    least: int = 1


_ENCODERS = {
    "h264": _Encoder("libx264", _x264),
    "hevc": _Encoder("libx265", _x265, least=66),
    "av1": _Encoder("libsvtav1", _svt_av1, all_chroma=False),
}


class Software:
    """The encoder of each codec that runs on one core of the host."""

    on_gpu = False

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        """Encode one closed GOP. Raises PipelineError and MediaError for planes that make no picture, or none of the
        codec.
        """
        by_row = LazyPlane | GpuRows  # of these, rows are made or copied one by one
        planes = [plane if isinstance(plane, by_row) else np.asarray(plane) for plane in pictures.planes]
        geometry = geometry_of(planes, options.bits)
        encoder = self.new_encoder(geometry, pictures, options)
        return encode_gop(encoder, frames_of(planes, geometry, pictures.colour.range == FULL), tick)

    def new_encoder(self, geometry: Geometry, pictures: Pictures, options: VideoOptions) -> VideoCodecContext:
        """Create the encoder of one GOP of such pictures; the planes of `pictures` are not read. Raises as `encode`."""
        name, options_of, all_chroma, least = _ENCODERS[options.codec]
        if not all_chroma and not geometry.pix_fmt.startswith("yuv420p"):
            what = f"{options.codec} takes pictures of 4:2:0, and these are {geometry.pix_fmt}"
            raise PipelineError(what, 'write codec = "hevc" or "h264"')
        if min(geometry.height, geometry.width) < least:
            what = f"{pictures.media.name}: {geometry.width}x{geometry.height} is too small for {options.codec}"
            raise MediaError(what, f'at least {least} pixels high and wide; write codec = "h264" or "av1"')
        encoder = new_encoder(name, geometry, pictures)
        encoder.options = dict(options_of(options))
        encoder.thread_count = 1
        return encoder
