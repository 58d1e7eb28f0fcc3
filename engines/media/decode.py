"""A segment of video to parts: the frames that its windows look at, converted one by one as they leave the decoder.

What a segment's parts hold depends on the pipeline and the segment alone. `schemas.grid` says which frame a tick
sees; a part is a run of windows together with the frames they need, small enough to travel.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Protocol, TypeAlias

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engines.media.carrier import reorder_depth
from engines.media.frames import blank_frame, frame_step, no_frames, stack_frames
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import UPRIGHT
from engines.media.source import open_picture, packets_of, picture_stream
from engines.media.uniform import Uniform, presented
from engines.media.windows import MissingFrame, Slice, Span, every_frame, exactly, last_before, needed_ticks, slices
from engines.part import Array, Part, Tick, no_tick
from schemas.grid import Grid, frame_at
from schemas.messages import MediaInfo, PartMeta, Segment
from schemas.pipeline import PipelineSpec
from schemas.wire import Buffer

Convert: TypeAlias = Callable[[av.VideoFrame, int], dict[str, Array]]
"""Arrays of one frame, given its orientation: `Preprocess.convert`, or `pack_frame` where preprocess runs elsewhere."""


class Decoders(Protocol):
    """Where decoders come from, if not from the host."""

    def lease(self, stream: VideoStream, label: str) -> AbstractContextManager[VideoCodecContext]:
        """A decoder for the packets of `stream`. Raises MediaError when there can be none."""
        ...


_SKIPPABLE = ("h264", "hevc")  # decoders that can leave out single frames that no other frame refers to
_GUESSED = "h264"  # a stream that does not say how far frames are reordered has the decoder guess, and lose some
_MOST_REORDERED = 16
_PART_BYTES = {"planes": 16 << 20, "rgb": 64 << 20, "gray": 64 << 20}
_MOST_PART_BYTES = 256 << 20  # of what is as large as that, a part holds fewer windows than the least
_PART_WINDOWS = {"planes": (4, 24), "rgb": (1, 128), "gray": (1, 128)}


@dataclass(slots=True)
class _Tally:
    """What became of the frames that the segment owns, and what was out of the ordinary.

    `frames` are whole, `lost` did not come out of the decoder, or came patched over damage.
    """

    frames: int = 0
    lost: int = 0
    notes: dict[str, None] = field(default_factory=dict)


def decode_video(
    segment: Segment,
    data: Buffer,
    spec: PipelineSpec,
    convert: Convert,
    decoders: Decoders | None = None,
    limits: Limits = DEFAULT_LIMITS,
    tick: Tick = no_tick,
) -> Iterator[Part]:
    """The parts of a segment, in order: one at least, the last one marked so.

    `data` is the segment's buffer. Arrays are those of `convert`, stacked over the part's frames, and `index [W, T]`
    int32. A frame that damage took is counted in `meta.lost`: the decoder's patched picture is used, and where there is
    none, the last one before it. What other `decoders` stumble over is left to the host's, whose patches are the
    reference. `tick` is called after each packet. Raises MediaError when the segment can not be opened at all,
    ItemTooLarge when it goes beyond `limits`.
    """
    sent_parts = sent_frames = 0
    for whole in (False, True):
        tally = _Tally()
        try:
            pieces = _slices(segment, data, spec, convert, tally, whole, None if whole else decoders, limits, tick)
            for number, (piece, last) in enumerate(_mark_last(pieces, spec.grid)):
                if number < sent_parts:
                    continue  # sent before damage made us start over; it was exact, for it missed no frame it was due
                frames = max(0, tally.frames - sent_frames)
                sent_parts, sent_frames = number + 1, sent_frames + frames
                yield _part(segment, presented(segment.media, spec), number, last, piece, convert, frames, tally)
            return
        except MissingFrame:
            continue


def windows_per_part(spec: PipelineSpec, media: MediaInfo) -> int:
    """How many windows a part holds: as many as keep its frames within bounds, by pipeline and media alone.

    The frames count as they are or as preprocess makes them, whichever is larger: a part may travel as either.
    """
    grid, layout, size = spec.grid, spec.preprocess.layout, spec.preprocess.size
    made_bytes = prod(size) * (3 if layout == "rgb" else 1) if size else 0
    bits = max(12, av.VideoFormat(media.pixel_format).padded_bits_per_pixel) if media.pixel_format else 12
    window_bytes = max(1, media.width * media.height * bits // 8, made_bytes) * min(grid.stride, grid.frames)
    least, most = _PART_WINDOWS[layout]
    least = max(1, min(least, _MOST_PART_BYTES // window_bytes))
    return min(most, max(least, _PART_BYTES[layout] // window_bytes))


def _slices(
    segment: Segment,
    data: Buffer,
    spec: PipelineSpec,
    convert: Convert,
    tally: _Tally,
    whole: bool,
    decoders: Decoders | None,
    limits: Limits,
    tick: Tick,
) -> Iterator[Slice[dict[str, Array]]]:
    """The segment's windows, those of one part at a time.

    Unless `whole`, frames that no window looks at may be left out, and MissingFrame is raised when that meets damage.
    """
    grid, media = spec.grid, segment.media
    span = Span(media.clock, segment.start, segment.end)
    label = f"segment {segment.key.segment} of {media.name or 'the media'}"
    limits.check_pixels(label, media.width, media.height)
    with open_picture(data, segment.container, label, limits) as container, ExitStack() as stack:
        uniform = Uniform(media, spec, tally.notes)
        several = len(container.streams.video) > 1  # else it was cut out of its container
        stream = picture_stream(container, label, limits, spec.decode.stream if several else None)
        packets = [packet for packet in packets_of(container, stream) if packet.size]
        if media.codec == _GUESSED:
            depth = reorder_depth([packet.pts for packet in packets if packet.pts is not None])
            stream.codec_context.reorder_depth = min(_MOST_REORDERED, max(stream.codec_context.reorder_depth, depth))
        decoder = stack.enter_context(decoders.lease(stream, label) if decoders else nullcontext(stream.codec_context))
        reel = _Reel(packets, stream, decoder, span, media, tick)
        if grid.fps is not None and media.last is not None:
            limits.check_windows(label, span.windows(grid, reel.last))
        due = None if whole else reel.due(grid)
        with closing(reel.frames(tally, None if due is None else set(due.values()))) as frames:
            if due is not None:
                ticks = exactly(frames, due, grid, span.clock)
            else:
                ticks = (every_frame if grid.fps is None else last_before)(frames, grid, span)
            windows = 0
            for piece in slices(
                ticks, grid, windows_per_part(spec, media), lambda frame: convert(uniform(frame), media.orientation)
            ):
                windows += len(piece.pts)
                limits.check_windows(label, range(windows))
                yield piece
            if due is not None:
                tally.frames = reel.owned
                return
            for pts, _ in frames:  # what no window looks at is counted all the same
                if not span.owns(pts):
                    break
        missing = max(0, reel.owned - tally.frames - tally.lost) if reel.damaged else 0
        tally.lost += missing
        if tally.lost:
            tally.notes[f"{label}: {tally.lost} frames are damaged, {missing} of them missing"] = None


class _Reel:
    """A segment's packets with their times in the media's clock, and the frames they decode to."""

    def __init__(
        self,
        packets: "Sequence[Packet[VideoStream]]",
        stream: VideoStream,
        decoder: VideoCodecContext,
        span: Span,
        media: MediaInfo,
        tick: Tick,
    ) -> None:
        self._decoder = decoder
        self._tick = tick
        self._borrowed = decoder is not stream.codec_context
        self._span = span
        self._media = media
        scale = Fraction(stream.time_base or 1) / span.clock.time_base
        self._scale = None if scale == 1 else scale  # the carrier's clock is the media's where it is an mp4
        self._packets = packets
        self.times = [self._time(packet.pts) for packet in self._packets]
        shown = [time for packet, time in zip(self._packets, self.times, strict=True) if not packet.is_discard]
        self._shown = sorted(time for time in shown if time is not None and self._presents(time))
        self.owned = len(shown) if media.last is None else sum(map(span.owns, self._shown))
        self.damaged = False

    @property
    def last(self) -> int:
        """Pts of the last frame to look at, as far as packets tell."""
        return self._shown[-1] if self._shown else self._span.start

    def due(self, grid: Grid) -> dict[int, int] | None:
        """The pts that each needed tick is due to see, told from the packets; None where that can not be relied on."""
        times, span = self._shown, self._span
        if grid.fps is None or not times or self._media.last is None or self._decoder.name not in _SKIPPABLE:
            return None
        ticks = needed_ticks(grid, span.windows(grid, times[-1]))
        return {tick: times[frame_at(times, grid.tick_pts(span.clock, tick))] for tick in ticks}

    def frames(self, tally: _Tally, needed: set[int] | None) -> Generator[tuple[int, av.VideoFrame]]:
        """`(pts, frame)` in ascending time from the segment's start; frames that are not `needed` may be left out.

        Where the media's times can not be trusted, frames are numbered and come at its frame rate.
        """
        trusted, step = self._media.last is not None, frame_step(self._media)
        last: int | None = None
        for number, frame in enumerate(self._decoded(needed)):
            pts = self._time(frame.pts) if trusted else self._span.start + int(number * step)
            if pts is None or (last is not None and pts <= last):
                pts = self._span.start if last is None else last + max(1, round(step))
            if self._presents(pts):
                last = pts
                if self._span.owns(pts):
                    tally.lost += frame.is_corrupt
                    tally.frames += not frame.is_corrupt
                yield pts, frame

    def _decoded(self, needed: set[int] | None) -> Iterator[av.VideoFrame]:
        """What the decoder gives, packet by packet.

        Raises MissingFrame on damage when some may be left out, or when it is not the host's decoder.
        """
        strict = needed is not None or self._borrowed
        flush: tuple[Packet[VideoStream] | None, int | None] = (None, None)
        looked_at: bool | None = None
        for packet, time in [*zip(self._packets, self.times, strict=True), flush]:
            if needed is not None and looked_at != (time in needed):
                looked_at = time in needed
                self._decoder.skip_frame = "DEFAULT" if looked_at else "NONREF"
            try:
                frames = self._decoder.decode(packet)
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                if strict:
                    raise MissingFrame(time) from error
                self.damaged = True
                continue
            self._tick()
            if strict and any(frame.is_corrupt for frame in frames):
                raise MissingFrame(time)
            yield from frames

    def _presents(self, pts: int) -> bool:
        """Whether a frame at `pts` is to be looked at: not before the segment, nor after the media's end."""
        return self._span.start <= pts and (self._media.last is None or pts <= self._media.last)

    def _time(self, pts: int | None) -> int | None:
        return pts if pts is None or self._scale is None else round(pts * self._scale)


def _mark_last(pieces: Iterator[Slice[dict[str, Array]]], grid: Grid) -> Iterator[tuple[Slice[dict[str, Array]], bool]]:
    """Each piece, and whether it is the last; one without windows where there are none."""
    waiting = next(pieces, Slice((), [], np.empty((0, grid.frames), np.int32)))
    for piece in pieces:
        yield waiting, False
        waiting = piece
    yield waiting, True


def _part(
    segment: Segment,
    media: MediaInfo,
    number: int,
    last: bool,
    piece: Slice[dict[str, Array]],
    convert: Convert,
    frames: int,
    tally: _Tally,
) -> Part:
    meta = PartMeta(
        key=segment.key.model_copy(update={"part": number, "last": last}),
        media=media,
        pts=piece.pts,
        frames=frames,
        lost=tally.lost if last else 0,
        notes=tuple(tally.notes) if last else (),
    )
    arrays = stack_frames(piece.rows) if piece.rows else no_frames(convert(blank_frame("video"), UPRIGHT))
    return Part(meta, {**arrays, "index": piece.index})
