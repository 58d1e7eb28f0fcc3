"""Files of sound for tests, and the windows that the medium `audio` makes of them, segment by segment."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from engines.media.audio import Audio
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.medium import DecodePlace, Input, SplitRequest
from engines.part import Part
from engines.planned import DecodePlan
from schemas.grid import Grid
from schemas.jobs import JobRef, Key, Priority
from schemas.model import TensorSpec
from schemas.pipeline import DecodeStage

Floats = NDArray[np.float64]
_JOB = JobRef(id="sound", tenant="main", pipeline="p", revision="r", priority=Priority.BULK)


def voice(seconds: float, rate: int, seed: int = 0, channels: int = 1) -> Floats:
    """`[channels, n]` of -1 ... 1: tones that come and go over a little noise, other ones in each channel."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed)
    pitches = 200 + 130 * np.arange(channels)[:, None] + seed
    loud = 0.02 + 0.4 * np.maximum(0, np.sin(2 * np.pi * 0.37 * time + np.arange(channels)[:, None]))
    return loud * np.sin(2 * np.pi * pitches * time) + 0.01 * noise.standard_normal((channels, len(time)))


def file_of(
    samples: Floats, rate: int, container: str = "wav", codec: str = "pcm_s16le", bit_rate: int | None = None
) -> bytes:
    """A file of FFmpeg's encoder."""
    file = io.BytesIO()
    layout = "stereo" if len(samples) == 2 else "mono"
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        if bit_rate:
            stream.bit_rate = bit_rate
        for start in range(0, samples.shape[1], 4096):
            piece = np.ascontiguousarray(samples[:, start : start + 4096], np.float32)
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def decoded(
    data: bytes,
    segment_s: float = 4.0,
    sounds: dict[str, TensorSpec] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    grid: Grid | None = None,
    stream: int | None = None,
    **options: Any,
) -> list[Part]:
    """The parts of a file, each segment by itself, in order."""
    grid = grid or Grid()
    stage = DecodeStage(kind="decode", stream=stream, options={"rate": 16000, **options})
    medium = Audio(stage)
    plan = DecodePlan(stage, ("audio",), grid, {}, {}, sounds=sounds or {})
    place = DecodePlace(limits)
    parts: list[Part] = []
    for number, cut in enumerate(medium.split([Input(data, "voice")], SplitRequest(grid, segment_s, limits=limits))):
        key = Key(job=_JOB, segment=number, final=cut.final)
        parts += medium.decode(cut.segment(key), cut.buffers, plan, lambda *_: {}, place)
    return parts


def joined(parts: Sequence[Part], name: str = "sound") -> NDArray[Any]:
    """The values of an array of all parts, end to end."""
    found = [part.arrays[name] for part in parts]
    return np.concatenate([each if isinstance(each, np.ndarray) else each.values for each in found])


def begins(parts: Sequence[Part]) -> list[int]:
    """Where each window begins, in samples after second 0."""
    return [pts - part.meta.media.origin for part in parts for pts in part.meta.pts]
