"""Makes clips for the benchmarks of GPUs, once in a folder, from patterns and from a real clip."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.workloads import looped
from tests.clips import real_clip

KINDS = {
    "h264": ("libx264", "yuv420p", (720, 1280), {"crf": "23", "preset": "veryfast"}),
    "h264 odd": ("libx264", "yuv420p", (362, 642), {"crf": "20", "preset": "veryfast"}),
    "hevc": ("libx265", "yuv420p", (720, 1280), {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "hevc 10 bit": ("libx265", "yuv420p10le", (720, 1280), {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "yuv420p", (720, 1280), {"deadline": "realtime", "cpu-used": "8"}),
}


def pattern(path: Path, kind: str, frames: int = 48, colour: tuple[int, int] = (1, 1), gop: int = 24) -> Path:
    """Moving shapes and noise, `colour` being AVColorSpace and AVColorRange; 30 frames a second."""
    encoder, layout, (height, width), options = KINDS[kind]
    return _written(path, encoder, layout, (height, width), options, frames, colour, gop)


def full_hd(folder: Path, frames: int) -> Path:
    """1080p H.264, `frames` at 30 a second: ten seconds of a moving pattern, again and again by stream copy."""
    whole = folder / f"full-hd-{frames}.mp4"
    if not whole.exists():
        options = {"crf": "23", "preset": "veryfast", "threads": "0"}
        short = _written(folder / "short.mp4", "libx264", "yuv420p", (1080, 1920), options, 300, (1, 1), 60)
        repeat(short, whole, frames)
    return whole


def real_full_hd(folder: Path, frames: int) -> Path:
    """1080p H.264 of a real clip that is enlarged, again and again by stream copy."""
    return real(folder, "real-full-hd", (1080, 1920), frames)


def real(folder: Path, name: str, size: tuple[int, int], frames: int) -> Path:
    """H.264 of a real clip that is scaled to `size`, again and again by stream copy."""
    whole, short = folder / f"{name}-{frames}.mp4", folder / f"{name}-short.mp4"
    if not whole.exists():
        with av.open(real_clip("bikes")) as given, av.open(short, "w") as out:
            options = {"crf": "23", "preset": "veryfast", "threads": "0"}
            stream: Any = out.add_stream("libx264", rate=30, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = 60
            for number, frame in enumerate(given.decode(video=0)):
                scaled = frame.reformat(size[1], size[0], "yuv420p")
                scaled.pts, scaled.time_base = number, Fraction(1, 30)
                out.mux(stream.encode(scaled))
            out.mux(stream.encode())
        repeat(short, whole, frames)
    return whole


def hd(folder: Path, frames: int) -> Path:
    """720p H.264 of a real clip, 25 frames a second."""
    return looped(folder / f"hd-{frames}.mp4", frames / 25)


def repeat(short: Path, whole: Path, frames: int) -> None:
    """A clip again and again by stream copy until it has `frames`."""
    with av.open(short) as given, av.open(whole, "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        step = stream.duration or 0
        base = stream.time_base or Fraction(1)
        for turn in range(-(-frames // len(packets))):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + turn * step, (packet.dts or 0) + turn * step
                again.time_base, again.is_keyframe, again.stream = base, packet.is_keyframe, copy
                out.mux(again)


def count(path: Path) -> int:
    """Frames of a clip."""
    with av.open(path) as container:
        return sum(bool(packet.size) for packet in container.demux(video=0))


def _written(
    path: Path,
    encoder: str,
    layout: str,
    size: tuple[int, int],
    options: dict[str, str],
    frames: int,
    colour: tuple[int, int],
    gop: int,
) -> Path:
    if path.exists():
        return path
    height, width = size
    generator = np.random.default_rng(1)
    noise = generator.integers(0, 24, (height, width, 3), np.uint8)
    down, across = np.mgrid[:height, :width]
    with av.open(path, "w") as out:
        stream: Any = out.add_stream(encoder, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        stream.codec_context.gop_size = gop
        stream.codec_context.colorspace, stream.codec_context.color_range = colour
        for number in range(frames):
            red = (across + 4 * number) % 256
            green = (down * 2 + 3 * number) % 256
            blue = ((across - 320 - 6 * number) ** 2 + (down - 200) ** 2) // 300 % 256
            rgb = np.clip(np.stack([red, green, blue], -1) + np.roll(noise, 5 * number, 1), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
                format=layout, dst_colorspace=colour[0], dst_color_range=colour[1]
            )
            frame.colorspace, frame.color_range = colour
            frame.pts, frame.time_base = number, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path
