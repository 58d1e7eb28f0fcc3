"""The host's cores as a worker's device."""

from collections.abc import Iterator, Mapping, Sequence

from engines.media.limits import Limits
from engines.media.medium import DecodePlace, medium_of
from engines.media.shared import SharedFolders
from engines.outputs.software import Software
from engines.part import Part, Tick, no_tick
from engines.pictures import HostPictures
from engines.planned import DecodePlan
from engines.ports import Preprocessing
from schemas.picture import PictureSpec
from schemas.segments import Segment
from schemas.settings import Settings


class Host:
    """The host's cores: one segment at a time on the worker's computing thread."""

    name = "cpu"
    concurrency = 1
    gpu = None
    host_is_free = False
    encoder = Software()

    def __init__(self, settings: Settings) -> None:
        self._place = DecodePlace(Limits.of(settings), SharedFolders.of(settings.shared))

    def preprocess(self, pictures: Mapping[str, PictureSpec]) -> HostPictures:
        """Return the conversion of frames by swscale."""
        return HostPictures(pictures)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Yield the parts of a segment, decoded on demand."""
        return medium_of(segment.media, plan).decode(segment, buffers, plan, preprocess.convert, self._place, tick)

    def leave(self) -> None:
        """Do nothing: the host has no state of a thread."""

    def facts(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Do nothing: there is no memory to free."""
