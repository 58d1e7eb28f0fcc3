"""Makes the media of the benchmarks from real clips: long videos, many short clips, many images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from tests.clips import real_clip

SHORT_FRAMES = 50
_SHORT_SOURCES = (("bigbuckbunny", (0, 27, 54, 81)), ("bikes", (0, 66, 133, 199)))
LONG_S, CLIP_S, SMALL_S, IMAGES, CLIPS, SMALL = 60.0, 5.0, 16.0, 5000, 200, 40


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the workloads; `few` is for a check that all still runs."""

    long_s: float = LONG_S
    images: int = IMAGES
    clips: int = CLIPS
    small: int = SMALL
    small_s: float = SMALL_S

    def described(self) -> dict[str, float]:
        """As numbers by name."""
        return asdict(self)

    @classmethod
    def few(cls) -> "Sizes":
        """The smallest sizes with several segments, several groups of images, and more clips than workers."""
        return cls(long_s=15.0, images=130, clips=6, small=3, small_s=4.0)


def inputs_of(workload: str, folder: Path, sizes: Sizes) -> list[Path]:
    """The files of a workload, made once.

    `long`: one video; `clips`: many of two seconds; `images`: jpegs of 720p; `mix`: clips with the long video among
    them; `clip`: one of five seconds; `small`: one of 176x144, for what is slow; `queued-N`:
    N of one second, so small that what is not decoding shows; `check` and `check-images`: what
    every contestant answers before it is timed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if workload == "long":
        return [looped(folder / f"long-{sizes.long_s:g}.mp4", sizes.long_s)]
    if workload == "check":
        return [looped(folder / "check.mp4", 15)]
    if workload.startswith("queued-"):
        return tiny_clips(folder, int(workload.removeprefix("queued-")))
    if workload == "clip":
        return [looped(folder / "clip.mp4", CLIP_S)]
    if workload == "small":
        return [looped(folder / "small.mp4", sizes.small_s, "carphone_pristine")]
    if workload in ("images", "check-images"):
        return images(folder, sizes.images if workload == "images" else 200)
    if workload == "mix":
        small = short_clips(folder, sizes.small)
        return [*small[: len(small) // 2], *inputs_of("long", folder, sizes), *small[len(small) // 2 :]]
    assert workload == "clips", workload
    return short_clips(folder, sizes.clips)


def items_in(paths: list[Path]) -> int:
    """Frames of videos, or how many images."""
    if paths[0].suffix == ".jpg":
        return len(paths)
    count: dict[int, int] = {}  # by file: clips are few files under many names
    total = 0
    for path in paths:
        inode = path.stat().st_ino
        if inode not in count:
            with av.open(path) as container:
                count[inode] = sum(1 for packet in container.demux(video=0) if packet.size)
        total += count[inode]
    return total


def looped(path: Path, seconds: float, source: str = "bigbuckbunny") -> Path:
    """A real clip looped to at least `seconds` by stream copy, picture only."""
    if path.exists():
        return path
    with av.open(real_clip(source)) as given, av.open(path, "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        assert stream.duration is not None
        length = stream.duration
        assert stream.time_base is not None
        for turn in range(int(seconds / float(length * stream.time_base)) + 1):
            for packet in packets:
                assert packet.pts is not None
                assert packet.dts is not None
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + turn * length, packet.dts + turn * length
                again.time_base, again.is_keyframe = stream.time_base, packet.is_keyframe
                again.stream = copy
                out.mux(again)
    return path


def short_clips(folder: Path, count: int) -> list[Path]:
    """`count` clips of 50 frames, half of 1280x720 and half of 640x272: eight different ones under many names."""
    return named(folder / "short.mp4", list(_short_clips(folder)), count)


def tiny_clips(folder: Path, count: int) -> list[Path]:
    """`count` names of one clip of 176x144 and about a second."""
    given = folder / "tiny.mp4"
    if not given.exists():
        _cut(given, "carphone_pristine", 0, 30)
    return named(given, [given], count)


def named(like: Path, given: Sequence[Path], count: int) -> list[Path]:
    """`count` numbered names, in the manner of `like`, of the files `given` in turn."""
    paths = [like.with_stem(f"{like.stem}-{number:05d}") for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            os.link(given[number % len(given)], path)
    return paths


def _short_clips(folder: Path) -> Iterator[Path]:
    """The different ones, encoded again: a keyframe, then B-frames as x264 chooses them."""
    for source, starts in _SHORT_SOURCES:
        for start in starts:
            path = folder / f"cut-{source}-{start}.mp4"
            if not path.exists():
                _cut(path, source, start, SHORT_FRAMES)
            yield path


def _cut(path: Path, source: str, start: int, frames: int) -> None:
    with av.open(real_clip(source)) as given, av.open(path, "w") as out:
        stream = given.streams.video[0]
        target = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20"})
        target.width, target.height = stream.codec_context.width, stream.codec_context.height
        target.pix_fmt = "yuv420p"
        for number, frame in enumerate(given.decode(stream)):
            if start <= number < start + frames:
                frame.pts, frame.time_base = number - start, Fraction(1, 25)
                frame.pict_type = PictureType.NONE  # otherwise the source's keyframes stay
                out.mux(target.encode(frame))
        out.mux(target.encode(None))


def images(folder: Path, count: int) -> list[Path]:
    """`count` jpegs of 1280x720: the frames of a real clip under many names."""
    given = folder / "jpegs"
    pictures = sorted(given.glob("*.jpg")) if given.exists() else _pictures(given)
    return named(folder / "image.jpg", pictures, count)


def _pictures(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = []
    with av.open(real_clip("bigbuckbunny")) as given:
        for number, frame in enumerate(given.decode(video=0)):
            encoder = av.CodecContext.create("mjpeg", "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
            encoder.time_base = Fraction(1, 25)
            encoder.options = {"qscale": "4"}
            packets = [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode()]
            paths.append(folder / f"{number:03d}.jpg")
            paths[-1].write_bytes(b"".join(bytes(packet) for packet in packets))
    return paths
