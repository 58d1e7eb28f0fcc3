"""The media of `rigflow simulate --job`: a file that is read, or a description such as `2h 1080p h264`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from engines.workload import MediaFacts
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings

SEE = "a file, or as in --job '2h 1080p h264 x 100'; see docs/simulate.md"
MOST_JOBS = 10_000
_TIMES = re.compile(r"(.+?)(?:\s+[x×]\s*(\d{1,7}))?")
_SPAN = re.compile(r"(?=\d)(?:(\d{1,4}(?:\.\d+)?)h)?(?:(\d{1,5}(?:\.\d+)?)min)?(?:(\d{1,6}(?:\.\d+)?)s)?")
_SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440), "4k": (3840, 2160)}
_BITS = {"h264": 0.07, "hevc": 0.045, "vp9": 0.045, "av1": 0.035, "mpeg4": 0.12}  # of a pixel, in usual films
_TICKS = 90_000  # a second, of a described film's clock


def times_of(text: str) -> tuple[str, int]:
    """`film.mp4 x 100` as the file and 100. Raises UsageError."""
    found = _TIMES.fullmatch(text.strip())
    if found is None or not int(found[2] or 1):
        raise UsageError(f"--job {text[:60]!a} is no job", SEE)
    if int(found[2] or 1) > MOST_JOBS:
        raise UsageError(f"--job {text[:60]!a}: at most {MOST_JOBS:,} jobs are simulated", "take fewer, longer films")
    return found[1], int(found[2] or 1)


def facts_of(text: str, spec: "PipelineSpec", settings: "Settings") -> "MediaFacts":
    """What is known of a media. Raises UsageError, ItemTooLarge, and for files what `media_facts` raises."""
    path = Path(text)
    if path.exists() or (path.suffix.strip(".").isalnum() and not path.suffix[1:2].isdigit()):
        from cli.plan import facts_of_file

        return facts_of_file(spec, path, settings)
    return _described(text, spec, settings)


def _described(text: str, spec: "PipelineSpec", settings: "Settings") -> "MediaFacts":
    """The facts of a film of some duration, size and codec, at usual rates of bits. Raises UsageError, ItemTooLarge."""
    from engines.media.limits import Limits
    from engines.media.video import Video
    from engines.workload import MediaFacts
    from schemas.media import MediaInfo

    if Video.kind not in spec.media:
        takes = ", ".join(spec.media)
        raise UsageError(f"pipeline {spec.name} takes {takes}, and only films can be described", "give a file")
    span_s, (width, height), codec, fps, bits = _words(text)
    limits, film = Limits.of(settings), f"the film of --job {text[:60]!a}"
    limits.check_pixels(film, width, height)
    limits.check_duration(film, span_s)
    frames = span_s * fps
    ticks = int(span_s * _TICKS)
    media = MediaInfo(
        kind=Video.kind,
        codec=codec,
        width=width,
        height=height,
        time_base=(1, _TICKS),
        last=max(0, ticks - int(_TICKS / fps)),
        end=ticks,
        pixel_format="yuv420p",
        frame_rate=(round(1000 * fps), 1000),
    )
    pieces = max(1, round(span_s / spec.segment_s))
    return MediaFacts(media, pieces, int(span_s * (bits or _BITS[codec] * width * height * fps) / 8), frames)


def _words(text: str) -> tuple[float, tuple[int, int], str, float, float]:
    """Seconds, size, codec, frames a second, bits a second (0: usual ones) of a description. Raises UsageError."""
    span_s, size, codec, fps, bits = 0.0, _SIZES["1080p"], "h264", 25.0, 0.0
    for word in text.lower().split():
        if found := _SPAN.fullmatch(word):
            hours, minutes, seconds = (float(part or 0) for part in found.groups())
            span_s += 3600 * hours + 60 * minutes + seconds
        elif word in _SIZES:
            size = _SIZES[word]
        elif found := re.fullmatch(r"(\d{2,5})x(\d{2,5})", word):
            size = int(found[1]), int(found[2])
        elif word in _BITS:
            codec = word
        elif found := re.fullmatch(r"(\d{1,3}(?:\.\d+)?)fps", word):
            fps = float(found[1])
        elif found := re.fullmatch(r"(\d{1,4}(?:\.\d+)?)mbit", word):
            bits = float(found[1]) * 1e6
        else:
            raise UsageError(f"--job has {word[:60]!a}: no file, and not a word of a film", SEE)
    if not (span_s and fps):
        raise UsageError(f"--job {text[:60]!a} has no duration", SEE)
    if not all(size):
        raise UsageError(f"--job {text[:60]!a} has no pixels", SEE)
    return span_s, size, codec, fps, bits
