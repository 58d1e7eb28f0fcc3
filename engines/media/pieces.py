"""Yields the windows of a segment, one part at a time: of frames one by one, or decoded and converted in bursts."""

from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, TypeAlias, TypeVar

import av

from engines.media.bursts import PartDecoder
from engines.media.limits import Limits
from engines.media.reader import FrameReader
from engines.media.source import media_errors
from engines.media.uniform import Uniform
from engines.media.windows import Slice, Span, every_frame, last_before, slices
from engines.part import Array, Tick
from engines.planned import DecodePlan
from schemas.media import CodecParameters, MediaInfo
from schemas.picture import PictureSpec
from schemas.segments import Segment
from schemas.wire import Buffer

Frame = TypeVar("Frame")
Pieces: TypeAlias = Generator[Slice[dict[str, Array]]]

_PLANES_BYTES, _PICTURES_BYTES = 16 << 20, 64 << 20  # of a part of raw frames, and of a part of pictures
_MOST_PART_BYTES = 256 << 20  # a part that would be larger holds fewer windows than the minimum
# minimum and maximum: each part costs a worker, the broker and the client some milliseconds of CPU, as much as four
# frames of 176x144 that are enlarged
_PLANES_WINDOWS, _PICTURES_WINDOWS = (4, 128), (1, 128)
# of a part of the pictures that a model makes of tiles, up to 4 times as high and wide; a part is a GOP of its own, and
# with fewer windows films become much larger
_ENLARGED_BYTES, _ENLARGED_TIMES, _ENLARGED_WINDOWS = 512 << 20, 16, 12


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


def windows_of(
    frames: Generator[tuple[int, Frame]],
    last: int,
    span: Span,
    media: MediaInfo,
    plan: DecodePlan,
    convert: Callable[[Frame], dict[str, Array]],
    label: str,
    limits: Limits,
    is_empty: Callable[[int], bool] = lambda _: False,
) -> Pieces:
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


class Given(NamedTuple):
    """A segment, and how it is decoded; `label` is for errors."""

    segment: Segment
    codec: CodecParameters
    buffers: Sequence[Buffer]
    plan: DecodePlan
    uniform: Uniform
    label: str
    limits: Limits
    tick: Tick


def one_by_one(
    given: Given,
    reader: FrameReader,
    frames: Generator[tuple[int, av.VideoFrame]],
    convert: Callable[[av.VideoFrame, int], dict[str, Array]],
) -> Pieces:
    """Yield the windows of frames that are read and converted one by one."""
    segment, plan = given.segment, given.plan

    def converted(frame: av.VideoFrame) -> dict[str, Array]:
        return convert(given.uniform(frame), segment.media.orientation)

    return windows_of(
        frames, reader.last, reader.span, segment.media, plan, converted, given.label, given.limits, reader.is_empty
    )


def in_bursts(given: Given, reader: FrameReader, decoder: PartDecoder) -> Pieces:
    """Yield the windows of frames that are decoded and converted a part at a time: those that are due.

    Raises IrregularBurst at anything unexpected.
    """
    due, media = reader.due, given.segment.media
    times = ((pts, pts) for pts in due)
    planned = list(
        windows_of(times, reader.last, reader.span, media, given.plan, lambda _: {}, given.label, given.limits)
    )
    used = {pts for piece in planned for pts in piece.times}
    fresh = (pts for pts in due if pts in used)
    made: dict[int, dict[str, Array]] = {}
    table, data = given.buffers
    try:
        decoder.begin(table, data, reader.expected(used), given.uniform, media.orientation)
        for piece, following in zip_longest(planned, planned[1:]) if planned else ((None, None),):
            goal = bisect_right(due, piece.times[-1]) if piece and following else len(due)
            rows = decoder.rows(goal, given.tick)
            made |= {next(fresh): row for row in rows}
            reader.came(decoder.seen())
            if piece:
                yield replace(piece, rows=[made[pts] for pts in piece.times])
            made = {pts: row for pts, row in made.items() if following and pts >= following.times[0]}
    finally:
        decoder.end()
