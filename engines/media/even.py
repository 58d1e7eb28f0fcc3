"""Base of media that hold uncompressed frames of one size, evenly spaced, end to end behind a header.

Frame number n has the pts n. The buffer of a segment has the bytes of its frames; no decoder is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import av
import numpy as np
from pydantic import ValidationError

from engines.media.decode import Convert, decode_frames
from engines.media.frames import plane_rows
from engines.media.medium import BaseMedium, DecodePlace, Input, SplitRequest
from engines.media.read_at import ReadAt
from engines.media.segment_data import SegmentData
from engines.media.source import media_errors, reading
from engines.options import Options
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError, format_field_error
from schemas.grid import Clock
from schemas.media import MediaInfo
from schemas.segments import Segment
from schemas.wire import Buffer

OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, slots=True)
class EvenFrames:
    """The frames of a file: the first one begins at byte `begin`, and `rate` of them are shown a second.

    `pixel_format` is FFmpeg's name.
    """

    count: int
    height: int
    width: int
    pixel_format: str
    begin: int
    rate: int


class EvenMedium(BaseMedium[OptionsT]):
    """A medium adds `kind`, `options_class`, `sniff` and `frames`."""

    def frames(self, read: ReadAt, name: str) -> EvenFrames:
        """Return the frames of a file from its header; `read` reads its bytes. Raises MediaError."""
        raise NotImplementedError

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Cut after `segment_s` seconds; a segment has all frames that its windows look at."""
        [given] = inputs
        with media_errors(given.name), reading(given.source) as read:
            found = self.frames(read, given.name)
            media = _media_info(self.kind, given.name, found, request)
            nbytes, count = _frame_bytes(media), found.count
            step = max(1, int(request.segment_s * found.rate))
            for start in range(0, count, step):
                end = start + step if start + step < count else None
                stop = count if end is None else min(count, request.needed_until(media.clock, end))
                data = read(found.begin + start * nbytes, (stop - start) * nbytes)
                if len(data) < (stop - start) * nbytes:
                    raise MediaError(f"{given.name} is truncated", "copy it again")
                yield SegmentData(media, (data,), end is None, start, end)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Make frames of the buffer. Raises MediaError unless it holds entire frames of the segment's media."""
        media = segment.media
        place.limits.check_pixels(media.name, media.width, media.height)
        nbytes = _frame_bytes(media)
        if len(buffers) != 1 or len(buffers[0]) % nbytes:
            raise MediaError(f"a segment of {self.kind} has other bytes than those of its frames")
        rows = np.frombuffer(buffers[0], np.uint8).reshape(-1, nbytes)
        frames = (_frame(media, row) for row in rows)
        last = segment.start + len(rows) - 1
        return decode_frames(segment, enumerate(frames, segment.start), last, plan, convert, place.limits, tick)


def _media_info(kind: str, name: str, found: EvenFrames, request: SplitRequest) -> MediaInfo:
    """Return the description of the frames. Raises ItemTooLarge, and MediaError if there is nothing to show."""
    if not found.count * found.height * found.width:
        size = f"{found.width}x{found.height}"
        raise MediaError(f"{name} has {found.count} frames of {size} pixels", "give frames with pixels")
    clock = Clock(Fraction(1, found.rate), 0)
    request.limits.check_pixels(name, found.width, found.height)
    request.limits.check_frames(name, request.grid, clock, found.count - 1, found.count)
    per_second, last = request.grid.shown(clock, Fraction(found.rate), found.count - 1)
    try:
        return MediaInfo(
            kind=kind,
            name=name,
            width=found.width,
            height=found.height,
            time_base=(1, found.rate),
            last=last,
            end=found.count,
            pixel_format=found.pixel_format,
            frame_rate=(per_second.numerator, per_second.denominator),
        )
    except ValidationError as error:  # of a header that states any size
        raise MediaError(f"{name}: {format_field_error(error.errors()[0])}", "give frames of a usual size") from error


def _frame_bytes(media: MediaInfo) -> int:
    """Return the number of bytes of one frame, at least 1. Raises MediaError."""
    try:
        frame = av.VideoFrame(media.width, media.height, media.pixel_format)
    except ValueError as error:
        raise MediaError(f"FFmpeg has no pixel format `{media.pixel_format}`") from error
    nbytes = sum(plane_rows(frame, number).size for number in range(len(frame.planes)))
    if not nbytes:
        raise MediaError(f"a frame of {media.width}x{media.height} pixels in {media.pixel_format} has no bytes")
    return nbytes


def _frame(media: MediaInfo, row: Array) -> av.VideoFrame:
    frame = av.VideoFrame(media.width, media.height, media.pixel_format)
    for number in range(len(frame.planes)):
        samples = plane_rows(frame, number)
        samples[:] = row[: samples.size].reshape(samples.shape)
        row = row[samples.size :]
    return frame
