"""Finds the codecs that a GPU's decoder and encoder open, by trying them."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.cuda.gpu import CudaGpu
from engines.cuda.nvdec import open_decoder
from engines.priority import open_encoder

_MAKERS = {"h264": "libx264", "hevc": "libx265", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
_MAKERS |= {"mpeg4": "mpeg4", "mpeg2video": "mpeg2video", "mjpeg": "mjpeg"}
ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
_OPTIONS = {"libx265": {"x265-params": "log-level=none", "preset": "ultrafast"}, "libsvtav1": {"preset": "12"}}
_SIDE, _FRAMES = 256, 4  # small enough for every GPU, and large enough for NVENC, whose minimum is 145


def gpu_codecs(name: str, cache: Path) -> tuple[list[str], list[str]]:
    """Return the codecs of which GPU `name` decoded a few frames, and the encoders of FFmpeg that it opened.

    Raises UsageError and DeviceLost.
    """
    os.environ.setdefault("SVT_LOG", "0")  # the only way to silence it
    gpu = CudaGpu(name, cache)
    try:
        decoders = [codec for codec, maker in _MAKERS.items() if _decodes(gpu.number, maker)]
        return decoders, [encoder for encoder in ENCODERS if opens_encoder(encoder, gpu.number)]
    finally:
        gpu.close()


def opens_encoder(name: str, number: int) -> bool:
    """Return whether an encoder of FFmpeg opens on GPU `number`; H200 has no NVENC, and mining GPUs disable it."""
    try:
        encoder = _encoder(name)
        encoder.options = {"gpu": str(number)}
        encoder.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _decodes(number: int, maker: str) -> bool:
    """Return whether the GPU gives a picture for a stream that `maker` wrote."""
    try:
        encoder = _encoder(maker)
        open_encoder(encoder)
        packets = [
            packet for frame in (*_noise(encoder.pix_fmt or "yuv420p"), None) for packet in encoder.encode(frame)
        ]
        like = av.CodecContext.create(encoder.codec.canonical_name, "r")
        assert isinstance(like, VideoCodecContext)
        like.extradata, like.width, like.height = encoder.extradata, _SIDE, _SIDE
        decoder = open_decoder(number, like)
        frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)] if decoder else []
    except (av.error.FFmpegError, ValueError):
        return False
    return any(frame.format.name == "cuda" for frame in frames)


def _encoder(name: str) -> VideoCodecContext:
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width = encoder.height = _SIDE
    encoder.pix_fmt = "yuvj420p" if name == "mjpeg" else "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.framerate = Fraction(25)
    encoder.options = _OPTIONS.get(name, {})
    return encoder


def _noise(layout: str) -> list[av.VideoFrame]:
    frames = []
    generator = np.random.default_rng(0)
    for number in range(_FRAMES):
        frame = av.VideoFrame(_SIDE, _SIDE, layout)
        for plane in frame.planes:
            plane.update(generator.integers(16, 235, plane.buffer_size, np.uint8).tobytes())
        frame.pts, frame.time_base = number, Fraction(1, 25)
        frames.append(frame)
    return frames
