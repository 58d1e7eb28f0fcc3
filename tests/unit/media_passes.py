"""The two ways to look at a media: one plain pass over one decoder, and in segments, each decoded by itself."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from engines.media.decode import Decoders, decode_video
from engines.media.source import Source
from engines.media.split import SegmentData, Splitter
from engines.part import Array, Part
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.pipeline import PipelineSpec
from tests.plans import decode_plan

JOB = JobRef(id="job", pipeline="test", revision="0")


def pipeline(
    *, fps: float | None = None, frames: int = 1, stride: int = 1, warm_up: int = 0, **resize: Any
) -> PipelineSpec:
    """A pipeline with that grid and resize stage; planes unless it says otherwise."""
    window = {"frames": frames, "stride": stride}
    stages = [
        {"kind": "decode", "fps": fps, "window": window, "warm_up": warm_up},
        {"kind": "resize", **json.loads(json.dumps(resize or {"layout": "planes"}))},
        {"kind": "encode", "format": "npz"},
    ]
    return PipelineSpec.model_validate({"name": "test", "media": ["video", "image"], "stage": stages})


def raw(frame: av.VideoFrame, orientation: int) -> dict[str, Array]:
    """A frame as its decoder gave it: the bytes of its planes, in one row."""
    return {"pixels": _samples(frame)}


@dataclass
class Windows:
    """Windows of a media: pts of the first tick, and what each sees, `[T, ...]`."""

    pts: list[int]
    seen: list[Array]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Windows)
        same = len(self.seen) == len(other.seen) and self.pts == other.pts
        return same and all(map(np.array_equal, self.seen, other.seen))


def sequential(path: Path, spec: PipelineSpec, times: Sequence[int] = ()) -> tuple[Windows, int]:
    """Windows by the words of `schemas.grid`, in plain fractions; and the number of frames.

    `times` are those of the frames in the order in which they are shown, where the decoder knows none.
    """
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        time_base = Fraction(stream.time_base or 1)
        frames = [(frame.pts or 0, _samples(frame)) for frame in container.decode(stream)]
    if times:
        frames = [(pts, picture) for pts, (_, picture) in zip(times, frames, strict=True)]
    pts, pictures = [pts for pts, _ in frames], [picture for _, picture in frames]
    return _windows(pts, pictures, spec, time_base), len(frames)


def _samples(frame: av.VideoFrame) -> Array:
    depth = (frame.format.components[0].bits + 7) // 8
    lines = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in frame.planes]
    parts = zip(lines, frame.format.components, strict=True)
    return np.concatenate([rows[:, : part.width * depth].reshape(-1) for rows, part in parts])


def _windows(pts: list[int], pictures: list[Array], spec: PipelineSpec, time_base: Fraction) -> Windows:
    length, stride = spec.grid.frames, spec.grid.stride
    if spec.grid.fps is None:
        looks = [[min(first + step, len(pts) - 1) for step in range(length)] for first in range(len(pts))]
        return Windows(pts, [np.stack([pictures[row] for row in look]) for look in looks])
    ticks: list[int] = []
    seen: list[Array] = []
    tick = 0
    while (at := pts[0] + tick / spec.grid.fps / time_base) <= pts[-1]:
        times = [pts[0] + (tick + step) / spec.grid.fps / time_base for step in range(length)]
        rows = [max(row for row, each in enumerate(pts) if each <= time) for time in times]
        ticks.append(int(at // 1))
        seen.append(np.stack([pictures[row] for row in rows]))
        tick += stride
    return Windows(ticks, seen)


def segments_of(source: Source, spec: PipelineSpec, segment_s: float) -> tuple[MediaInfo, list[SegmentData]]:
    """What the splitter makes of a source."""
    with Splitter(source, spec.grid, segment_s) as splitter:
        return splitter.media, list(splitter.segments())


def decoded(
    media: MediaInfo,
    segments: Sequence[SegmentData],
    spec: PipelineSpec,
    convert: Callable[[av.VideoFrame, int], dict[str, Array]] = raw,
    decoders: Decoders | None = None,
) -> list[Part]:
    """The parts of all pieces, the last piece decoded first: no piece may depend on another."""
    parts: list[list[Part]] = []
    for number, segment_data in reversed(list(enumerate(segments))):
        parts.append(list(parts_of(media, segment_data, spec, convert, decoders, number)))
    return [part for segment_parts in reversed(parts) for part in segment_parts]


def parts_of(
    media: MediaInfo,
    data: SegmentData,
    spec: PipelineSpec,
    convert: Callable[[av.VideoFrame, int], dict[str, Array]] = raw,
    decoders: Decoders | None = None,
    number: int = 0,
) -> Iterator[Part]:
    """The parts of one segment."""
    segment = replace(data, media=media).segment(Key(job=JOB, segment=number, final=data.final))
    return decode_video(segment, data.buffers, decode_plan(spec), convert, decoders)


def joined(parts: Sequence[Part], name: str = "pixels") -> Windows:
    """The windows of parts, in order, without those of warm-ups."""
    parts = [part.without_warm_up() for part in parts]
    pts = [pts for part in parts for pts in part.meta.pts]
    return Windows(pts, [part.arrays[name][look] for part in parts for look in part.arrays["index"]])


def in_segments(source: Source, spec: PipelineSpec, segment_s: float) -> tuple[Windows, list[Part]]:
    """Windows and parts of a source that is split and decoded piece by segment_data."""
    media, segments = segments_of(source, spec, segment_s)
    parts = decoded(media, segments, spec)
    return joined(parts), parts


def warmed_up(parts: Sequence[Part], number: int) -> Windows:
    """The windows of a segment's warm-up."""
    mine = [part for part in parts if part.meta.key.segment == number]
    pts = [pts for part in mine for pts in part.meta.pts[: part.meta.warm_up]]
    looks = [(part, look) for part in mine for look in part.array("index")[: part.meta.warm_up]]
    return Windows(pts, [part.array("pixels")[look] for part, look in looks])
