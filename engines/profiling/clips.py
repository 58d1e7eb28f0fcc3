"""Short clips to measure decoders with, made on the host: a soft picture with grain that moves."""

import os
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext

from engines.part import Array
from engines.priority import open_encoder

RATE = 25
SIZES = {(1280, 720): 12, (1920, 1080): 8, (3840, 2160): 4}  # width and height -> frames of a clip
MAKERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
_OPTIONS = {  # they give about 5 Mbit/s at 720p, as films have: a decoder's speed depends on it
    "libx264": {"preset": "ultrafast", "crf": "22"},
    "libx265": {"preset": "ultrafast", "crf": "16", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "27", "b": "0"},
    "libsvtav1": {"preset": "12", "crf": "10"},
}
_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own decoder of av1 works on GPUs alone
_GRAIN, _SOFT, _STEP = 6, 16, 3  # levels of grain; pixels of a soft spot; pixels a frame


@dataclass(frozen=True, slots=True)
class Clip:
    """The packets of one closed GOP, and a decoder's context that describes them."""

    codec: str
    width: int
    height: int
    frames: int
    extradata: bytes | None
    packets: tuple[bytes, ...]

    @property
    def label(self) -> str:
        """`h264 1280x720`."""
        return f"{self.codec} {self.width}x{self.height}"

    def decoder(self) -> VideoCodecContext:
        """A decoder of the host for it, as workers open theirs: one thread."""
        context = av.CodecContext.create(_DECODERS.get(self.codec, self.codec), "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata, context.width, context.height = self.extradata, self.width, self.height
        context.thread_type, context.thread_count = "NONE", 1
        return context


def make_clip(codec: str, width: int, height: int) -> Clip | None:
    """Encode a clip of `codec`; None if this FFmpeg has no encoder of it."""
    os.environ.setdefault("SVT_LOG", "0")  # the only way to silence it
    frames = SIZES[width, height]
    try:
        encoder = av.CodecContext.create(MAKERS[codec], "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
        encoder.gop_size = frames
        encoder.options = _OPTIONS[MAKERS[codec]]
        open_encoder(encoder)
        drawn = (*pictures(width, height, frames), None)
        packets = tuple(bytes(packet) for frame in drawn for packet in encoder.encode(frame))
    except (av.error.FFmpegError, UnknownCodecError, ValueError):
        return None
    return Clip(codec, width, height, frames, encoder.extradata, packets)


def pictures(width: int, height: int, count: int) -> list[av.VideoFrame]:
    """The frames of a clip, yuv420p: the same ones each time."""
    random = np.random.default_rng(0)
    soft = random.integers(40, 200, (height // _SOFT + 2, width // _SOFT + 2), np.uint8)
    large: Array = np.kron(soft, np.ones((_SOFT, _SOFT), np.uint8))[:height, :width]
    grain = random.integers(0, _GRAIN, (height, width), np.uint8)
    frames = []
    for number in range(count):
        luma = np.roll(large, _STEP * number, 1) + np.roll(grain, (37 * number, 91 * number), (0, 1)) * (number % 2 + 1)
        chroma = np.full((height // 2, width), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(np.concatenate((luma, chroma)), "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        frames.append(frame)
    return frames
