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

from engines.media.bursts import BurstDecoder, IrregularBurst
from engines.media.frames import blank_frame, no_frames, stack_frames
from engines.media.last import marked_last
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import UPRIGHT
from engines.media.packets import open_decoder, unpack
from engines.media.reader import Counts, FrameReader
from engines.media.source import media_errors
from engines.media.uniform import Uniform, presented
from engines.media.windows import MissingFrame, Slice, Span, every_frame, last_before, slices
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError
from schemas.grid import Grid
from schemas.media import CodecParameters, MediaInfo
from schemas.parts import PartMeta
from schemas.picture import PictureSpec
from schemas.segments import Segment
from schemas.wire import Buffer

Frame = TypeVar("Frame")
Convert: TypeAlias = Callable[[av.VideoFrame, int], dict[str, Array]]
"""Arrays of one frame, given its orientation: `engines.ports.Preprocessing.convert`."""


class Decoders(Protocol):
    """Provides decoders other than the host's."""

    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> AbstractContextManager[VideoCodecContext | BurstDecoder]:
        """Lease a decoder for the stream of `like`, a decoder of the host. Raises MediaError if there is none.

        With `bursts`, it may be one that takes many packets in one call; an IrregularBurst is then no failure of it.
        """
        ...


class _Reading(Enum):
    """How the frames of a segment are read: each way is tried where the one before it met something unexpected."""

    IN_BURSTS = 1
    ONE_BY_ONE = 2
    PATCHED = 3


_WHENCE = "a split stage of rigflow sends no such segment"
_PLANES_BYTES, _PICTURES_BYTES = 16 << 20, 64 << 20  # of a part of raw frames, and of a part of pictures
_MOST_PART_BYTES = 256 << 20  # a part that would be larger holds fewer windows than the minimum
_PLANES_WINDOWS, _PICTURES_WINDOWS = (4, 24), (1, 128)  # minimum and maximum
# of a part of the pictures that a model makes of tiles, up to 4 times as high and wide; a part is a GOP of its own, and
# with fewer windows films become much larger
_ENLARGED_BYTES, _ENLARGED_TIMES, _ENLARGED_WINDOWS = 512 << 20, 16, 12


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
    next_way = _Reading.IN_BURSTS
    for reading in _Reading:
        if reading is not next_way:
            continue
        counts = Counts(notes=dict.fromkeys(segment.notes))
        try:
            pieces = _slices(segment, buffers, plan, convert, counts, reading, decoders, limits, tick)
            for number, (piece, last) in enumerate(_marked(pieces, plan.grid)):
                if number < sent_parts:
                    continue  # sent before the restart; it was exact, because none of its frames was missing
                frames = max(0, counts.frames - sent_frames)
                sent_parts, sent_frames = number + 1, sent_frames + frames
                yield _part(segment, presented(segment.media, plan), number, last, piece, convert, frames, counts)
            return
        except IrregularBurst:
            next_way = _Reading.ONE_BY_ONE
        except MissingFrame:
            next_way = _Reading.PATCHED


def windows_per_part(plan: DecodePlan, media: MediaInfo) -> int:
    """Return the number of windows of a part: its frames stay within bounds. It depends on pipeline and media alone.

    The bytes are those of the raw frames or of their pictures, whichever are more: a part may carry either; and those
    that a model makes of tiles.
    """
    grid = plan.grid
    made_bytes = sum(_picture_bytes(picture, media) for picture in plan.pictures.values())
    bits = max(12, av.VideoFormat(media.pixel_format).padded_bits_per_pixel) if media.pixel_format else 12
    window_bytes = max(1, media.width * media.height * bits // 8, made_bytes) * min(grid.stride, grid.frames)
    least, most = _PLANES_WINDOWS if plan.planes else _PICTURES_WINDOWS
    least = max(1, min(least, _MOST_PART_BYTES // window_bytes))
    tiled = sum(_picture_bytes(picture, media) for picture in plan.pictures.values() if picture.tile)
    if tiled:
        most = min(most, max(_ENLARGED_WINDOWS, _ENLARGED_BYTES // (tiled * _ENLARGED_TIMES)))
    return min(most, max(least, (_PLANES_BYTES if plan.planes else _PICTURES_BYTES) // window_bytes))


def most_images(plan: DecodePlan, media: MediaInfo) -> int:
    """Return the most images of a part, by the bytes of their pictures; 1 if those have the size of the image."""
    made_bytes = sum(_picture_bytes(picture, media) for picture in plan.pictures.values())
    return 1 if plan.by_source else max(1, _PICTURES_BYTES // max(1, made_bytes))


def _picture_bytes(picture: PictureSpec, media: MediaInfo) -> int:
    if picture.layout == "planes":
        return 0  # as large as the frame
    height, width = (media.height, media.width) if picture.size == "source" else picture.size
    return height * width * (3 if picture.layout == "rgb" else 1)


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

    sent = 0
    pieces = _windows(counted(), last, span, media, plan, converted, label, limits)
    for number, (piece, is_last) in enumerate(_marked(pieces, plan.grid)):
        whole, sent = counts.frames - sent, counts.frames
        yield _part(segment, presented(media, plan), number, is_last, piece, convert, whole, counts)


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
) -> Iterator[Slice[dict[str, Array]]]:
    """Yield the segment's windows, one part at a time. Raises MissingFrame on damage that is not PATCHED."""
    grid, media = plan.grid, segment.media
    name = media.name or "the media"
    label = f"segment {segment.key.segment} of {name}"
    codec = _checked(segment, buffers, label)
    limits.check_pixels(label, media.width, media.height)
    with media_errors(label):
        uniform = Uniform(media, plan, counts.notes)
    extradata, packets = unpack(codec, buffers)
    host = open_decoder(codec, extradata, limits, label)
    leased: AbstractContextManager[VideoCodecContext | BurstDecoder] = nullcontext(host)
    if decoders and reading is not _Reading.PATCHED:
        leased = decoders.lease(host, label, reading is _Reading.IN_BURSTS)
    with leased as decoder:
        reader = FrameReader(packets, segment, grid, tick)
        span = reader.span
        if grid.fps is not None:
            limits.check_windows(label, span.windows(grid, reader.last))
        if reading is _Reading.PATCHED:
            frames = reader.patched(lambda: open_decoder(codec, extradata, limits, label))
        else:
            frames = reader.exact(decoder)

        def converted(frame: av.VideoFrame) -> dict[str, Array]:
            return convert(uniform(frame), media.orientation)

        with closing(
            _windows(frames, reader.last, span, media, plan, converted, label, limits, reader.is_empty)
        ) as pieces:
            for piece in pieces:
                counts.frames = reader.counted
                yield piece
        reader.count(counts, name)


def _checked(segment: Segment, buffers: Sequence[Buffer], label: str) -> CodecParameters:
    """Return the parameters of a segment's decoder. Raises MediaError if it is no segment of video."""
    if len(buffers) != 2 or segment.codec is None:
        codec = "no codec" if segment.codec is None else "a codec"
        raise MediaError(f"{label} has {len(buffers)} buffers and {codec}", _WHENCE)
    if not (segment.media.width and segment.media.height):
        raise MediaError(f"{label} has a picture without size", _WHENCE)
    return segment.codec


def _windows(
    frames: Generator[tuple[int, Frame]],
    last: int,
    span: Span,
    media: MediaInfo,
    plan: DecodePlan,
    convert: Callable[[Frame], dict[str, Array]],
    label: str,
    limits: Limits,
    is_empty: Callable[[int], bool] = lambda _: False,
) -> Generator[Slice[dict[str, Array]]]:
    """Yield the windows of frames, one part at a time, and read all frames; `last` is the pts of the last one.

    Raises ItemTooLarge if there are too many windows; `label` is for errors.
    """
    grid, windows = plan.grid, 0
    with media_errors(label), closing(frames):
        ticks = every_frame(frames, grid, span) if grid.fps is None else last_before(frames, grid, span, last)
        for piece in slices(ticks, grid, windows_per_part(plan, media), convert, is_empty):
            windows += len(piece.pts)
            limits.check_windows(label, range(windows))
            yield piece
        for _ in frames:  # frames that no window needs are counted as well
            pass


def _marked(pieces: Iterator[Slice[dict[str, Array]]], grid: Grid) -> Iterator[tuple[Slice[dict[str, Array]], bool]]:
    """Yield each slice, and whether it is the last; if there are none, yield one slice without windows."""
    first = next(pieces, Slice((), [], np.empty((0, grid.frames), np.int32)))
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
