"""The host's cores as a worker's device."""

from collections.abc import Iterator, Mapping, Sequence

from engines.media.decode import decode_video
from engines.media.images import decode_images
from engines.media.limits import Limits
from engines.media.shared import SharedFolders
from engines.outputs.h264 import X264
from engines.part import Part, Tick, no_tick
from engines.pictures import Pictures
from engines.planned import DecodePlan
from engines.ports import Preprocessing
from schemas.model import PictureSpec
from schemas.segments import Segment
from schemas.settings import Settings


class Host:
    """The host's cores: one segment at a time on the worker's computing thread."""

    name = "cpu"
    concurrency = 1
    gpu = None
    encoder = X264()

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits.of(settings)
        self._shared = SharedFolders.of(settings.shared)

    def preprocess(self, pictures: Mapping[str, PictureSpec]) -> Pictures:
        """Return the conversion of frames by swscale."""
        return Pictures(pictures)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Yield the parts of a segment, decoded on demand."""
        convert = preprocess.convert
        if segment.media.kind == "image":
            return decode_images(segment, buffers, plan, convert, self._limits, self._shared, tick)
        return decode_video(segment, buffers, plan, convert, limits=self._limits, tick=tick)

    def leave(self) -> None:
        """Do nothing: the host has no state of a thread."""

    def facts(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Do nothing: there is no memory to free."""
