"""video: frames with times, in segments that begin with a keyframe."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from engines.media.animation import film_of
from engines.media.decode import Convert, decode_video
from engines.media.medium import BaseMedium, DecodePlace, Input, Match, Shown, SplitRequest
from engines.media.orientation import orientation_of
from engines.media.segment_data import SegmentData
from engines.media.source import is_still, open_media, picture_stream
from engines.media.split import Splitter
from engines.media.uniform import VideoDecodeOptions
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError, UsageError
from schemas.segments import Segment
from schemas.wire import Buffer

_LAST = 1 << 61  # FFmpeg's numbers have 64 bits
_BACK_S = (0, 1, 4, 16, 64)  # before the time that is looked for
_MOST_FRAMES = 250  # decoded after a keyframe: the picture may be an earlier one if keyframes are rare


class Video(BaseMedium[VideoDecodeOptions]):
    """See `engines.media.split` and `engines.media.decode`."""

    kind = "video"
    options_class = VideoDecodeOptions

    def sniff(self, head: bytes, given: Input) -> Match:
        """An animated image is one; anything but an image may be one that FFmpeg reads."""
        still = is_still(head, given.source, given.name)
        return Match.POSSIBLE if still is None else Match.NO if still else Match.CERTAIN

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Cut at keyframes, without decoding."""
        [given] = inputs
        splitter = Splitter(
            given.source,
            request.grid,
            request.segment_s,
            name=given.name,
            sound=request.sound,
            stream=self._stage.stream,
            limits=request.limits,
        )
        with splitter:
            yield from splitter.segments()

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """By the GPU's decoders where there are some."""
        return decode_video(segment, buffers, plan, convert, place.decoders, place.limits, tick)

    def picture(self, path: Path, at_s: float) -> Shown:
        """Return the last frame at or before `at_s`. Raises UsageError: the film ends before."""
        with open_media(film_of(path)) as container:
            stream = picture_stream(container, str(path))
            base = stream.time_base or Fraction(1)
            target = (stream.start_time or 0) + min(round(at_s / base), _LAST)
            found, end = _last_before(container, stream, target, at_s > 0)
            if end is not None and at_s > 0 and target >= end:
                end_s = float((end - (stream.start_time or 0)) * base)
                raise UsageError(f"{path} has no picture at {at_s:.2f} s", f"it ends at {end_s:.2f} s")
            if found is None:
                raise MediaError(f"{path} has no picture that can be decoded", "see whether `ffprobe` can read it")
            aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
            return Shown(found, orientation_of(found), aspect)


def _last_before(
    container: av.container.InputContainer, stream: av.VideoStream, target: int, seek: bool
) -> tuple[av.VideoFrame | None, int | None]:
    """The last frame at or before `target`, and the film's end where that was seen. Without `seek` the first frame.

    A container without an index, as MPEG-TS, does not seek to a keyframe: the first frame that can be decoded is then
    behind the target, or there is none. So it seeks farther back until one is not.
    """
    first, base = stream.start_time or 0, stream.time_base or Fraction(1)
    for back_s in _BACK_S if seek else (0,):
        start = target - round(back_s / base)
        if seek:
            try:
                container.seek(start, stream=stream)
            except av.FFmpegError:  # some demuxers refuse a time before the first frame; MPEG-TS wants one
                container.seek(first, stream=stream)
        found, end = _decoded(container, stream, target)
        if found is not None and (found.pts is None or found.pts <= target):
            break
        if start < first:  # that is the beginning
            break
    return found, end


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, target: int
) -> tuple[av.VideoFrame | None, int | None]:
    """The last frame at or before `target` from here on, or else the first, and the film's end where that was seen."""
    found: av.VideoFrame | None = None
    for number, frame in enumerate(container.decode(stream)):
        if found is not None and frame.pts is not None and frame.pts > target:
            return found, None
        if number > _MOST_FRAMES:
            return found, None if stream.duration is None else (stream.start_time or 0) + stream.duration
        found = frame
    return found, _end_of(found, stream)


def _end_of(last: av.VideoFrame | None, stream: av.VideoStream) -> int | None:
    """Return when the last frame of a film is over, in units of its stream; None if that is not known."""
    if last is None or last.pts is None or not stream.time_base:
        return None
    return last.pts + (last.duration or round(1 / (stream.average_rate or 1) / stream.time_base))
