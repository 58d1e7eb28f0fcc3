"""A plain decode of a media by PyAV, and files to try: the decode shares nothing with what it is held against."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engines.priority import kept_priority
from tests.coloured import orient
from tests.films import Sound, add_track, sound_packets

SOUND_S = 1.5  # how long the sound of a file lasts
ENCODERS = {
    "libx264": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"),
    "libx265": ("yuv420p", "yuv422p10le", "gbrp"),
    "libvpx": ("yuv420p",),
    "libvpx-vp9": ("yuv420p", "yuv444p"),
    "libsvtav1": ("yuv420p", "yuv420p10le"),
    "mpeg4": ("yuv420p",),
    "mpeg2video": ("yuv420p", "yuv422p"),
    "mpeg1video": ("yuv420p",),
    "mjpeg": ("yuvj420p", "yuvj444p"),
    "prores_ks": ("yuv422p10le", "yuva444p10le"),
    "ffv1": ("yuv420p", "yuv411p", "gray", "bgr0", "yuv422p10le"),
    "rawvideo": ("yuv420p", "nv12", "uyvy422", "yuyv422", "rgb24", "bgr24", "gray", "yuv444p"),
    "utvideo": ("yuv420p", "yuv422p", "gbrp"),
    "huffyuv": ("yuv422p", "rgb24"),
    "msmpeg4": ("yuv420p",),
    "wmv2": ("yuv420p",),
    "flv": ("yuv420p",),
    "qtrle": ("rgb24", "gray"),
    "png": ("rgb24", "gray"),
}
CONTAINERS = {
    "mp4": "mp4",
    "mov": "mov",
    "mkv": "matroska",
    "webm": "webm",
    "avi": "avi",
    "ts": "mpegts",
    "mpg": "mpeg",
    "nut": "nut",
    "asf": "asf",
    "flv": "flv",
    "mxf": "mxf",
    "y4m": "yuv4mpegpipe",
}
REORDERING = ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video")
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "x264-params": "scenecut=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "13", "svtav1-params": "lp=1"},
}


@dataclass(frozen=True)
class Kind:
    """A file to try: `traits` are b-frames, vfr, interlaced, odd (sizes).

    `orientation` is EXIF's number of its display matrix, in mp4 and mov; `sound` is the encoder of its sound track.
    """

    encoder: str
    container: str
    layout: str
    traits: frozenset[str] = frozenset()
    orientation: int = 1
    sound: str = ""

    @property
    def name(self) -> str:
        """A file name that says all of it."""
        words = (self.encoder, self.layout, *sorted(self.traits), self.sound, self.orientation)
        return "-".join(str(word) for word in words if word not in ("", 1)) + f".{self.container}"


def write(folder: Path, kind: Kind, frames: int = 24) -> Path | None:
    """Writes the file; None where the container or the encoder does not take it."""
    path = folder / kind.name
    try:
        with av.open(path, "w", format=CONTAINERS[kind.container]) as out:
            _encode(out, kind, frames)
    except (av.error.FFmpegError, ValueError):
        return None
    if kind.orientation != 1:
        orient(path, kind.orientation)
    return path


@kept_priority()
def _encode(out: av.container.OutputContainer, kind: Kind, frames: int) -> None:
    sound = Sound(kind.sound, spans=((0, SOUND_S),))
    video = out.add_stream(kind.encoder, rate=25, options=dict(_OPTIONS.get(kind.encoder, {})))
    assert isinstance(video, av.VideoStream)
    context = video.codec_context
    context.width, context.height = (75, 67) if "odd" in kind.traits else (96, 80)
    context.pix_fmt, context.gop_size, context.thread_count = kind.layout, 6, 1
    context.time_base = Fraction(1, 25)
    if kind.encoder in REORDERING:
        context.max_b_frames = 2 if "b-frames" in kind.traits else 0
    if "interlaced" in kind.traits:
        context.flags |= av.codec.context.Flags.interlaced_dct
        context.field_order = 2  # the top field first
    packets = list(sound_packets(add_track(out, sound), sound)) if kind.sound else []
    y, x = np.mgrid[: context.height, : context.width]
    for number in range(frames):
        picture = np.stack([x + number * 5, 90 + y, 220 - x - y + number], -1).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=kind.layout)
        frame.pts, frame.time_base = written(kind, number), Fraction(1, 25)
        out.mux(video.encode(frame))
    out.mux(video.encode(None))
    out.mux(packets)


def written(kind: Kind, number: int) -> int:
    """When the frame is shown that `write` writes, in units of 1/25 s."""
    return number + (number * number // 9 if "vfr" in kind.traits else 0)


def digest(frame: av.VideoFrame) -> str:
    """Of all samples of a frame; of the colours, where they are numbers of a palette."""
    if frame.format.name == "pal8":
        numbers, colours = frame.to_ndarray()
        return hashlib.sha256(b"rgb24" + colours[numbers][..., 1:].tobytes()).hexdigest()
    rows = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in frame.planes)
    used = [each[:, : _used(frame, number)].tobytes() for number, each in enumerate(rows)]
    return hashlib.sha256(b"".join([frame.format.name.encode(), *used])).hexdigest()


def _used(frame: av.VideoFrame, number: int) -> int:
    if len(frame.planes) == 1:
        return frame.width * frame.format.padded_bits_per_pixel // 8
    parts = [each for each in frame.format.components if each.plane == number]
    return sum(each.width * ((each.bits + 7) // 8) for each in parts)


def shown(path: Path) -> tuple[list[str], list[Fraction | None]]:
    """Digests of all frames as one decoder gives them, and their times in seconds from the first."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        frames = [(digest(frame), frame.pts) for frame in container.decode(stream)]
        base = stream.time_base or Fraction(1)
    first = frames[0][1]
    times = [None if pts is None or first is None else (pts - first) * base for _, pts in frames]
    return [each for each, _ in frames], times
