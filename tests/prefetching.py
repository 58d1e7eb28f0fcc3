"""A device for tests that decodes in advance, on several threads, as a GPU does: here on the host's cores."""

from collections.abc import Iterator, Sequence

from engines.cuda.prefetch import Prefetcher
from engines.device.host import Host
from engines.media.medium import medium_of
from engines.part import Part, Tick, no_tick
from engines.pictures import HostPictures
from engines.planned import DecodePlan
from engines.ports import Preprocessing
from schemas.segments import Segment
from schemas.settings import Settings


class PrefetchingHost(Host):
    """Decodes `concurrency` segments at a time before they are asked for."""

    def __init__(self, settings: Settings, concurrency: int) -> None:
        super().__init__(settings)
        self.concurrency = concurrency
        self._prefetcher = Prefetcher(concurrency, lambda: None, lambda: None)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        convert = HostPictures(plan.pictures).convert
        parts = medium_of(segment.media, plan).decode(segment, buffers, plan, convert, self._place, tick)
        return self._prefetcher.reader(self._decoded(parts), 0)

    def _decoded(self, parts: Iterator[Part]) -> Iterator[Part]:
        """What the decoding threads run: a test may slow it down, or stop it."""
        return parts
