"""image: files of one picture each, many in a segment."""

from collections.abc import Iterator, Sequence

from engines.media.decode import Convert
from engines.media.images import decode_images
from engines.media.medium import DecodePlace
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.segments import Segment
from schemas.wire import Buffer


class Image:
    """See `engines.media.images.decode_images`."""

    kind = "image"
    timed = False
    pixel_format = "rgb24"

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Those in shared folders are read here."""
        return decode_images(segment, buffers, plan, convert, place.limits, place.shared, tick)
