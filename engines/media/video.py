"""video: frames with times, in segments that begin with a keyframe."""

from collections.abc import Iterator, Sequence

from engines.media.decode import Convert, decode_video
from engines.media.medium import DecodePlace
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.segments import Segment
from schemas.wire import Buffer


class Video:
    """See `engines.media.decode.decode_video`."""

    kind = "video"
    timed = True
    pixel_format = "yuv420p"

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
