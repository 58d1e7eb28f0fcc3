"""Video outputs of all kinds of media against PyAV and NumPy: upright pictures, colours, times, and sound in sync."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.format import names

from engines.part import Array
from tests import coloured
from tests.films import heard, offset_s, through
from tests.unit.plain import CONTAINERS, ENCODERS, REORDERING, Kind, write, written

LEVELS = 2.0  # of 255, on average over a picture, of each colour
ODD_LEVELS = 4.0  # turning 4:2:0 of an odd size moves its chroma by a pixel, in FFmpeg's filters too
IN_SYNC_S = 0.010
TIMES_S = Fraction(1, 500)  # containers of milliseconds round
TRAITS = ("", "b-frames", "vfr", "interlaced", "odd")
MATROSKA = (
    "aac",
    "libmp3lame",
    "libopus",
    "vorbis",
    "flac",
    "ac3",
    "eac3",
    "mp2",
    "alac",
    "pcm_s16le",
    "wavpack",
    "tta",
)
SOUNDS = {
    "mp4": ("aac", "libmp3lame", "libopus", "vorbis", "flac", "ac3", "eac3", "mp2", "alac"),
    "mov": ("aac", "libmp3lame", "ac3", "mp2", "alac", "pcm_s16le", "pcm_s24le", "pcm_f32le"),
    "mkv": MATROSKA,
    "webm": ("libopus", "vorbis"),
    "avi": ("aac", "libmp3lame", "ac3", "mp2", "pcm_s16le", "flac"),
    "ts": ("aac", "libmp3lame", "libopus", "ac3", "eac3", "mp2"),
    "mpg": ("mp2", "ac3"),
    "nut": MATROSKA,
    "asf": ("libmp3lame", "ac3", "mp2", "pcm_s16le"),
    "flv": ("aac", "libmp3lame"),
    "mxf": ("pcm_s16le",),
    "y4m": ("",),
}
TURNED = ("mp4", "mov")  # the containers of which PyAV writes a display matrix that a test can change


def kinds() -> list[Kind]:
    """What is tried; containers and encoders refuse many of these."""
    found = []
    for encoder, layouts in ENCODERS.items():
        for container in CONTAINERS:
            sounds = cycle(SOUNDS[container])
            for layout in layouts:
                found += [
                    Kind(encoder, container, layout, frozenset((trait,)) - {""}, sound=next(sounds))
                    for trait in TRAITS
                    if trait not in ("b-frames", "interlaced") or encoder in REORDERING
                ]
                for orientation in range(2, 9) if container in TURNED else ():
                    odd = frozenset(("odd",) if orientation % 2 else ())
                    found.append(Kind(encoder, container, layout, odd, orientation, next(sounds)))
    return [kind for kind in found if not is_sheared(kind)]


def is_sheared(kind: Kind) -> bool:
    """FFmpeg pads the lines of raw RGB of an odd width in mov to an even number of bytes, and reads them unpadded."""
    return (kind.encoder, kind.container, kind.layout) == ("rawvideo", "mov", "rgb24") and "odd" in kind.traits


ALL = kinds()


def check(folder: Path, kind: Kind, segment_s: float = 0.3) -> bool:
    """Holds the video output of a file of that kind against its plain decode; False where there can be no file."""
    path = write(folder, kind)
    if path is None:
        return False
    try:
        source = list(shown(path))
    except (av.error.FFmpegError, IndexError):
        return False
    made, notes = through(path, folder / "made", segment_s, crf=0.0)
    output = list(shown(made))
    assert len(output) == len(source), "frames"
    for number, ((_, found), (_, plain)) in enumerate(zip(output, source, strict=True)):
        wanted = coloured.seen(kind.orientation, plain)
        height, width = wanted.shape[:2]
        assert found.shape[0] - height in (0, 1)
        assert found.shape[1] - width in (0, 1)
        error = np.abs(found[:height, :width] - wanted).mean(axis=(0, 1)).max()
        turned = kind.orientation != 1 and "odd" in kind.traits
        assert error <= (ODD_LEVELS if turned else LEVELS), f"picture {number}: {error:.2f} levels"
    times = [time for time, _ in source]
    check_times([time for time, _ in output], times, kind)
    check_sound(path, made, kind, notes, None if rising(times) else 0.0)
    return True


def check_times(found: list[Fraction | None], plain: list[Fraction | None], kind: Kind) -> None:
    """Times from the first picture on: those of a plain decode, or those that were written, where it has others."""
    times = [time - found[0] for time in found if time is not None and found[0] is not None]
    assert len(times) == len(found)
    told = [time - plain[0] for time in plain if time is not None and plain[0] is not None]
    truth = [Fraction(written(kind, number), 25) for number in range(len(times))]
    if None in plain and "vfr" in kind.traits:
        return  # few packets have a time: the others are spread between them, and a note says so
    assert near(times, told) or near(times[:-2], truth[:-2]), "times"  # of the last ones no decoding time tells


def rising(times: list[Fraction | None]) -> bool:
    """Whether a plain decode knows when frames are shown; of AVI with B-frames it does not, and the first is at 0."""
    known = [time for time in times if time is not None]
    return known == sorted(known)


def near(times: list[Fraction], others: list[Fraction]) -> bool:
    return len(times) == len(others) and all(abs(a - b) <= TIMES_S for a, b in zip(times, others, strict=True))


def check_sound(path: Path, made: Path, kind: Kind, notes: list[str], first: float | None) -> None:
    """The sound, or a note that it is left out."""
    with av.open(made) as output:
        if not output.streams.audio:
            assert not kind.sound or any("is left out" in note for note in notes), "the sound is missing"
            return
    (found, rate), (expected, _) = heard(made), heard(path, first=first)
    assert abs(offset_s(found, expected, rate)) <= IN_SYNC_S, f"sound {offset_s(found, expected, rate):.3f} s"


def shown(path: Path) -> Iterator[tuple[Fraction | None, Array]]:
    """`(seconds, [H, W, 3])` of all frames of a file as they are stored, in NumPy's arithmetic."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            yield None if frame.pts is None else frame.pts * (stream.time_base or Fraction(1)), rgb_of(frame)


def rgb_of(frame: av.VideoFrame) -> Array:
    """`[H, W, 3]` float64 of a frame."""
    layout = frame.format
    if layout.is_rgb or layout.has_palette:
        return frame.to_ndarray(format="rgb24").astype(np.float64)
    chroma = layout.components[1:3]
    down, across = (round(frame.height / chroma[0].height), round(frame.width / chroma[0].width)) if chroma else (0, 0)
    name = {(0, 0): "gray", (1, 1): "yuv444p", (1, 2): "yuv422p", (2, 2): "yuv420p", (1, 4): "yuv411p"}[down, across]
    full = frame.color_range == coloured.FULL or layout.name.startswith(("yuvj", "gray"))
    if layout.name not in (name, name.replace("yuv", "yuvj")):
        assert name in names
        frame = frame.reformat(format=name)
    lines = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
    return coloured.rgb_of_planes(lines, coloured.custom(int(frame.colorspace), frame.height), full)


def few() -> list[Kind]:
    """A few kinds of each encoder, and each orientation and trait."""
    turned = [kind for kind in ALL if (kind.encoder, kind.container, kind.layout) == ("libx264", "mov", "yuv422p")]
    plain = [kind for kind in ALL if (kind.encoder, kind.container, kind.layout) == ("mpeg4", "mkv", "yuv420p")]
    each = [[kind for kind in ALL if kind.encoder == encoder] for encoder in ENCODERS]
    return [*turned, *plain, *(kind for some in each for kind in some[3 :: max(1, len(some) // 2)])]


def test_video_outputs_of_a_few_kinds(tmp_path: Path) -> None:
    assert "\n".join(failures(few(), tmp_path)) == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_video_outputs_of_all_kinds(encoder: str, tmp_path: Path) -> None:
    assert "\n".join(failures([kind for kind in ALL if kind.encoder == encoder], tmp_path)) == ""


def failures(tried: list[Kind], folder: Path) -> list[str]:
    found, done = [], 0
    for number, kind in enumerate(tried):
        (own := folder / str(number)).mkdir()
        try:
            done += check(own, kind)
        except Exception as error:
            found.append(f"{kind.name}: {type(error).__name__} {str(error).splitlines()[0]}")
        for path in own.iterdir():
            path.unlink()
    print(f"{done} of {len(tried)} kinds can be written and read")
    return found
