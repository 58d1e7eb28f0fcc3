"""Decodes a segment of video to parts: the frames that its windows need, each converted as it leaves the decoder.

The content of a segment's parts depends on the pipeline and the segment alone. `schemas.grid` defines which frame a
tick uses. A part is a run of windows with the frames they need, small enough to be sent as one message.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from enum import Enum
from itertools import chain
from typing import Protocol, TypeAlias, TypeVar

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.media.bursts import IrregularBurst, PartDecoder
from engines.media.frames import blank_frame, no_frames, stack_frames
from engines.media.last import marked_last
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import UPRIGHT
from engines.media.packets import open_decoder, unpack
from engines.media.pieces import Given, in_bursts, one_by_one, windows_of
from engines.media.reader import Counts, FrameReader
from engines.media.source import media_errors
from engines.media.stills import Decoded
from engines.media.uniform import Uniform, presented
from engines.media.windows import MissingFrame, Slice, Span
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError
from schemas.grid import Grid
from schemas.media import CodecParameters, MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer

Frame = TypeVar("Frame")
Convert: TypeAlias = Callable[[Decoded, int], dict[str, Array]]
"""Arrays of one frame or image, given its orientation: `engines.ports.Preprocessing.convert`."""


class Decoders(Protocol):
    """Provides decoders other than the host's."""

    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> AbstractContextManager[VideoCodecContext | PartDecoder]:
        """Lease a decoder for the stream of `like`, a decoder of the host. Raises MediaError if there is none.

        With `bursts`, it may be one that decodes a part in one call; an IrregularBurst is then no failure of it.
        """
        ...


class _Reading(Enum):
    """How the frames of a segment are read: each way is tried where the one before it met something unexpected."""

    IN_BURSTS = 1
    ONE_BY_ONE = 2
    PATCHED = 3


_WHENCE = "a split stage of rigflow sends no such segment"


def decode_video(
    segment: Segment,
    buffers: Sequence[Buffer],
    plan: DecodePlan,
    convert: Convert,
    decoders: Decoders | None = None,
    limits: Limits = DEFAULT_LIMITS,
    tick: Tick = no_tick,
) -> Iterator[Part]:
    """Yield the parts of a segment in order: at least one; the last one is marked as last.

    `buffers` are the segment's. Arrays are those of `convert`, stacked over the part's frames, and `index [W, T]`
    int32. A frame that is lost to damage is counted in `meta.lost`: the decoder's patched picture is used, or else the
    last picture before it. As soon as damage is found, the host decodes the segment again, each run of packets between
    two entries by itself. The result is then the same however the media is cut. `tick` is called after each packet.

    Raises MediaError if the segment cannot be opened at all, ItemTooLarge if it exceeds `limits`.
    """
    sent_parts = sent_frames = 0
    media: MediaInfo | None = None
    next_way = _Reading.IN_BURSTS
    for reading in _Reading:
        if reading is not next_way:
            continue
        counts = Counts(notes=dict.fromkeys(segment.notes))
        try:
            pieces = _slices(segment, buffers, plan, convert, counts, reading, decoders, limits, tick)
            for number, (piece, last) in enumerate(pieces):
                if number < sent_parts:
                    continue  # sent before the restart; it was exact, because none of its frames was missing
                frames = max(0, counts.frames - sent_frames)
                sent_parts, sent_frames = number + 1, sent_frames + frames
                media = media or presented(segment.media, plan)  # once: it takes as long as the rest of a part
                yield _part(segment, media, number, last, piece, convert, frames, counts)
            return
        except IrregularBurst:
            next_way = _Reading.ONE_BY_ONE
        except MissingFrame:
            next_way = _Reading.PATCHED


def decode_frames(
    segment: Segment,
    frames: Iterable[tuple[int, av.VideoFrame]],
    last: int,
    plan: DecodePlan,
    convert: Convert,
    limits: Limits = DEFAULT_LIMITS,
    tick: Tick = no_tick,
) -> Iterator[Part]:
    """Yield the parts of a segment from its frames and their pts, in rising order, for media that need no decoder.

    `last` is the pts of the last frame. Frames beyond the segment's end are for its last windows. Raises MediaError if
    a frame cannot be converted, ItemTooLarge if the segment exceeds `limits`.
    """
    counts, media = Counts(notes=dict.fromkeys(segment.notes)), segment.media
    span = Span(media.clock, segment.start, segment.end, segment.start)
    label = f"segment {segment.key.segment} of {media.name or 'the media'}"
    if plan.grid.warm_up:
        raise MediaError(
            f"{label}: media of kind {media.kind} have no warm-up",
            "say warm_up = 0 in the decode stage of the pipeline",
        )
    limits.check_pixels(label, media.width, media.height)

    with media_errors(label):
        uniform = Uniform(media, plan, counts.notes)

    def counted() -> Generator[tuple[int, av.VideoFrame]]:
        for pts, frame in frames:
            counts.frames += span.owns(pts)
            tick()
            yield pts, frame

    def converted(frame: av.VideoFrame) -> dict[str, Array]:
        return convert(uniform(frame), media.orientation)

    sent, shown = 0, presented(media, plan)
    pieces = windows_of(counted(), last, span, media, plan, converted, label, limits)
    for number, (piece, is_last) in enumerate(_marked(pieces, plan.grid)):
        whole, sent = counts.frames - sent, counts.frames
        yield _part(segment, shown, number, is_last, piece, convert, whole, counts)


def _slices(
    segment: Segment,
    buffers: Sequence[Buffer],
    plan: DecodePlan,
    convert: Convert,
    counts: Counts,
    reading: _Reading,
    decoders: Decoders | None,
    limits: Limits,
    tick: Tick,
) -> Iterator[tuple[Slice[dict[str, Array]], bool]]:
    """Yield the segment's windows, one part at a time, and whether it is the last; `counts.frames` are those up to it.

    Raises MissingFrame on damage that is not PATCHED. The decoder is free again before the last part is given.
    """
    name = segment.media.name or "the media"
    label = f"segment {segment.key.segment} of {name}"
    codec = _checked(segment, buffers, label)
    limits.check_pixels(label, segment.media.width, segment.media.height)
    with media_errors(label):
        uniform = Uniform(segment.media, plan, counts.notes)
    given = Given(segment, codec, buffers, plan, uniform, label, limits, tick)
    elsewhere = decoders if reading is not _Reading.PATCHED else None
    extradata, packets = unpack(codec, buffers, bodies=elsewhere is None)
    host = open_decoder(codec, extradata, limits, label)
    leased: AbstractContextManager[VideoCodecContext | PartDecoder] = nullcontext(host)
    if elsewhere:
        leased = elsewhere.lease(host, label, reading is _Reading.IN_BURSTS)
    with leased as decoder:
        if elsewhere and isinstance(decoder, VideoCodecContext):
            _, packets = unpack(codec, buffers)
        reader = FrameReader(packets, segment, plan.grid, tick)
        if plan.grid.fps is not None:
            limits.check_windows(label, reader.span.windows(plan.grid, reader.last))
        if not isinstance(decoder, VideoCodecContext):
            pieces = in_bursts(given, reader, decoder)
        elif reading is _Reading.PATCHED:
            frames = reader.patched(lambda: open_decoder(codec, extradata, limits, label))
            pieces = one_by_one(given, reader, frames, convert)
        else:
            pieces = one_by_one(given, reader, reader.exact(decoder), convert)
        with closing(pieces):
            for piece, last in _marked(pieces, plan.grid):
                if not last:
                    counts.frames = reader.counted(piece.times[-1])
                    yield piece, False
        reader.count(counts, name)
    yield piece, True


def _checked(segment: Segment, buffers: Sequence[Buffer], label: str) -> CodecParameters:
    """Return the parameters of a segment's decoder. Raises MediaError if it is no segment of video."""
    if len(buffers) != 2 or segment.codec is None:
        codec = "no codec" if segment.codec is None else "a codec"
        raise MediaError(f"{label} has {len(buffers)} buffers and {codec}", _WHENCE)
    if not (segment.media.width and segment.media.height):
        raise MediaError(f"{label} has a picture without size", _WHENCE)
    return segment.codec


def _marked(pieces: Iterator[Slice[dict[str, Array]]], grid: Grid) -> Iterator[tuple[Slice[dict[str, Array]], bool]]:
    """Yield each slice, and whether it is the last; if there are none, yield one slice without windows."""
    first = next(pieces, Slice((), [], [], np.empty((0, grid.frames), np.int32)))
    return marked_last(chain([first], pieces))


def _part(
    segment: Segment,
    media: MediaInfo,
    number: int,
    last: bool,
    piece: Slice[dict[str, Array]],
    convert: Convert,
    frames: int,
    counts: Counts,
) -> Part:
    meta = PartMeta(
        key=segment.key.model_copy(update={"part": number, "last": last}),
        media=media,
        pts=piece.pts,
        warm_up=sum(pts < segment.start for pts in piece.pts),
        frames=frames,
        lost=counts.lost if last else 0,
        unseen=counts.unseen if last else 0,
        notes=tuple(counts.notes) if last else (),
    )
    arrays = stack_frames(piece.rows) if piece.rows else no_frames(convert(blank_frame(), UPRIGHT))
    return Part(meta, {**arrays, "index": piece.index})
