"""For media whose frames are evenly spaced and need no decoder: frame number n has the pts n.

Such a medium reads a range of its frames when it splits, and makes frames of a buffer when it decodes.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

from pydantic import ValidationError

from engines.media.medium import SplitRequest
from engines.media.segment_data import SegmentData
from schemas.errors import MediaError, format_field_error
from schemas.grid import Clock
from schemas.media import MediaInfo
from schemas.wire import Buffer


def even_media(
    kind: str, name: str, request: SplitRequest, rate: int, shape: tuple[int, ...], pixel_format: str
) -> MediaInfo:
    """Return the description of `shape`, frames, height and width, shown `rate` a second.

    `pixel_format` is FFmpeg's name. Raises ItemTooLarge, and MediaError if there is nothing to show.
    """
    count, height, width = shape
    if not count * height * width:
        raise MediaError(f"{name} has {count} frames of {width}x{height} pixels", "give frames with pixels")
    clock = Clock(Fraction(1, rate), 0)
    request.limits.check_pixels(name, width, height)
    request.limits.check_frames(name, request.grid, clock, count - 1, count)
    per_second, last = request.grid.shown(clock, Fraction(rate), count - 1)
    try:
        return MediaInfo(
            kind=kind,
            name=name,
            width=width,
            height=height,
            time_base=(1, rate),
            last=last,
            end=count,
            pixel_format=pixel_format,
            frame_rate=(per_second.numerator, per_second.denominator),
        )
    except ValidationError as error:  # of a header that states any size
        raise MediaError(f"{name}: {format_field_error(error.errors()[0])}", "give frames of a usual size") from error


def even_segments(
    media: MediaInfo, request: SplitRequest, count: int, read: Callable[[int, int], Buffer]
) -> Iterator[SegmentData]:
    """Yield the segments of `count` frames, each with one buffer: `read(start, stop)`, the frames that it needs."""
    step = max(1, int(request.segment_s / media.clock.time_base))
    for start in range(0, count, step):
        end = start + step if start + step < count else None
        stop = count if end is None else min(count, request.needed_until(media.clock, end))
        yield SegmentData(media, (read(start, stop),), end is None, start, end)
